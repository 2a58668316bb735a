# needs: grpcurl python-grpc-tools-protoc
"$TOOLS/python" "$(dirname "${BASH_SOURCE[0]}")/grpc_server.py" 9002 > /run/grpc.log 2>&1 &
says 9001 'the web site'
names shop.example.com
certificate /etc/ringway/shop DNS:shop.example.com
await_port 9002
