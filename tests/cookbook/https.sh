says 9001 shop
says 9002 blog
names shop.example.com blog.example.com
certificate /etc/ringway/shop DNS:shop.example.com
certificate /etc/ringway/blog DNS:blog.example.com
