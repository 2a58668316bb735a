says 9001 shop
names shop.example.com
certificate /root/shop DNS:shop.example.com
