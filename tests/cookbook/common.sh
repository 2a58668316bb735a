# Functions for the scripts that start the peers of a page. `run` sources this file.
set -euo pipefail

await_port() { # PORT [ADDRESS]
  for _ in $(seq 600); do
    (exec 3<> "/dev/tcp/${2:-127.0.0.1}/$1") 2> /dev/null && return
    sleep 0.05
  done
  echo "nobody listens on port $1"; cat /run/*.log; return 1
}

# Starts nginx with this configuration inside `http`. Its servers must listen on the port.
nginx_with() { # PORT HTTP
  local place=/run/nginx-$1; mkdir -p "$place"
  cat > "$place/conf" <<END
user root; worker_processes 1; pid $place/pid; error_log $place/error;
events { worker_connections 256; }
http { access_log off; client_body_temp_path $place/b; proxy_temp_path $place/p; fastcgi_temp_path $place/f;
  uwsgi_temp_path $place/u; scgi_temp_path $place/s; default_type text/plain;
  $2
}
END
  nginx -c "$place/conf"
  await_port "$1"
}

# Starts a server that answers each request with a text.
says() { # PORT TEXT
  nginx_with "$1" "server { listen 127.0.0.1:$1; location / { return 200 \"$2\\n\"; } }"
}

# Makes a certificate for these names, from the CA of the page: /root/ca.pem.
certificate() { # FILE-WITHOUT-SUFFIX NAMES (DNS:... or IP:..., separated with commas)
  local make='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90'
  [ -f /root/ca.pem ] || $make -keyout /root/ca.key -out /root/ca.pem -subj '/CN=Test CA' 2> /dev/null
  $make -keyout "$1.key" -out "$1.pem" -subj "/CN=${2%%,*}" -CA /root/ca.pem -CAkey /root/ca.key \
    -addext "subjectAltName=$2" -addext basicConstraints=critical,CA:FALSE 2> /dev/null
}

# Makes these names resolve to this host.
names() { # NAME...
  echo "127.0.0.1 $*" >> /etc/hosts
}
