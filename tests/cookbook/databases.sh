# needs: redis-server redis-cli initdb postgres psql
redis-server --port 16379 --bind 127.0.0.1 --dir /run --save '' --daemonize yes > /dev/null
install -d -o postgres /run/pg /run/postgresql
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
as_postgres initdb -D /run/pg -A trust --no-sync > /run/pg.log
as_postgres postgres -D /run/pg -p 15432 -c listen_addresses=127.0.0.1 -c fsync=off > /run/pg.log 2>&1 &
await_port 16379
await_port 15432
for _ in $(seq 200); do psql -h 127.0.0.1 -p 15432 -U postgres -c '' > /dev/null 2>&1 && break; sleep 0.05; done
