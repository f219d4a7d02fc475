#!/usr/bin/env bash
# Draw docs/diagrams/*.mmd as SVG: needs Node.js and a Chromium. Each picture notes the hash of its source, which a test compares.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
export PUPPETEER_SKIP_DOWNLOAD=1
npm install --prefix "$tools" --no-audit --no-fund --silent @mermaid-js/mermaid-cli
printf '{"executablePath": "%s", "args": ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]}' \
    "$(command -v chromium || command -v google-chrome)" >"$tools/browser.json"
for source in docs/diagrams/*.mmd; do
    picture=${source%.mmd}.svg
    "$tools/node_modules/.bin/mmdc" -q -p "$tools/browser.json" -i "$source" -o "$picture" -b white
    printf '\n<!-- %s -->\n' "$(sha256sum "$source" | cut -d' ' -f1)" >>"$picture"
done
