# Sourced by test.sh: installs the programs that the tests need and that are not Python packages, if it can (root, apt-get).
# Chromium for the page (Playwright's own is not available everywhere, and a test never downloads one), nginx, Prometheus,
# DCMTK and ImageMagick, whose decoders the tests compare with.
lacking() {
    { [ -n "${LESION_CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null; } || echo chromium
    command -v nginx >/dev/null || echo nginx
    command -v dcmj2pnm >/dev/null || echo dcmtk
    { convert -version || magick -version; } 2>/dev/null | grep -q '^Version: ImageMagick' || echo imagemagick
    { command -v prometheus && command -v promtool; } >/dev/null || echo prometheus
}

install_packages() {
    local package policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then # no service of these packages may start
        trap "rm -f $policy" EXIT # of the subshell below, Ctrl-C included
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    for package in "$@"; do apt-get install -y --no-install-recommends "$package"; done
}

packages=$(lacking)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing from Debian for the tests:" $packages
    (set +e && install_packages $packages) >/dev/null 2>&1 || true
fi
for package in $(lacking); do
    echo "There is no $package (apt-get install $package): the tests that need it will be skipped, each named below."
done
