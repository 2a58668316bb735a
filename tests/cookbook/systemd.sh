# needs: setpriv useradd
here=$(dirname "${BASH_SOURCE[0]}")
install "$here/systemctl" /usr/bin/systemctl
install -D -m 644 "$here/../../systemd/ringway.service" /root/systemd/ringway.service
says 9001 shop
names shop.example.com
certificate /root/shop DNS:shop.example.com
