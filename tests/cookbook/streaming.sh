# needs: websockets
"$TOOLS/python" "$(dirname "${BASH_SOURCE[0]}")/streaming_server.py" 9001 9002 > /run/streaming.log 2>&1 &
await_port 9001
await_port 9002
