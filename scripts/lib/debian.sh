# Sourced by test.sh: installs what the tests need and is no Python package, where that may be done (root, apt-get).
# Chromium for the page (Playwright's own cannot be had everywhere, and a test never fetches one), nginx and Prometheus
# for what runs around the servers.
lacking() {
    { [ -n "${LESION_CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null; } || echo chromium
    command -v nginx >/dev/null || echo nginx
    { command -v prometheus && command -v promtool; } >/dev/null || echo prometheus
}

install_packages() {
    local package policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then # no service of theirs is to start
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
