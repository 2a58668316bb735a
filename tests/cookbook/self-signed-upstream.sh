make='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365'
$make -keyout /root/app.key -out /root/app.pem -subj /CN=app.internal -addext subjectAltName=DNS:app.internal 2> /dev/null
nginx_with 9443 'server { listen 127.0.0.1:9443 ssl; ssl_protocols TLSv1.3; ssl_certificate /root/app.pem; ssl_certificate_key /root/app.key;
  location / { return 200 "the app, by $ssl_protocol\n"; } }'
