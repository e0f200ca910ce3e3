#!/usr/bin/env bash
# PostgreSQL with two synchronous standbys (remote_apply) on loopback, and pgbench with the one-row read-modify-write
# transaction of `bench --door spanner --participants 1 --nodes 3`. Needs Debian's postgresql-15; runs everything in a
# temporary directory and removes it.
# usage: postgres.sh [SECONDS] [CLIENTS ...]
set -euo pipefail
bin=${PG_BIN:-/usr/lib/postgresql/15/bin}
seconds=${1:-5}
shift || true
clients=("${@:-1}")
[ $# -gt 0 ] || clients=(1 8 64)
folder=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
stop() {
  for number in 2 1 0; do
    "${as[@]}" "$bin/pg_ctl" -D "$folder/$number" -m immediate stop >/dev/null 2>&1 || true
  done
  rm -rf "$folder"
}
trap stop EXIT
cd "$folder"
port=${PG_PORT:-55430}
"${as[@]}" "$bin/initdb" -D "$folder/0" -U bench --auth=trust >/dev/null
cat >>"$folder/0/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$folder'
port = $port
max_connections = 200
shared_buffers = 256MB
synchronous_commit = remote_apply
CONF
"${as[@]}" "$bin/pg_ctl" -D "$folder/0" -w -l "$folder/0.log" start >/dev/null
for number in 1 2; do
  "${as[@]}" "$bin/pg_basebackup" -h 127.0.0.1 -p "$port" -U bench -D "$folder/$number" -R -X stream
  sed -i "s/application_name=[^ ']*//; s/user=bench/user=bench application_name=standby$number/" "$folder/$number/postgresql.auto.conf"
  printf "port = %s\n" $((port + number)) >>"$folder/$number/postgresql.conf"
  "${as[@]}" "$bin/pg_ctl" -D "$folder/$number" -w -l "$folder/$number.log" start >/dev/null
done
psql=("$bin/psql" -h 127.0.0.1 -p "$port" -U bench -q -d postgres)
"${psql[@]}" -c "CREATE TABLE load (id bigint PRIMARY KEY, value bigint)" -c "INSERT INTO load SELECT id, 0 FROM generate_series(0, 9999) id"
"${psql[@]}" -c "ALTER SYSTEM SET synchronous_standby_names = '2 (standby1, standby2)'" -c "SELECT pg_reload_conf()" >/dev/null
sleep 1
cat >"$folder/add.sql" <<SQL
\set id random(0, 9999)
BEGIN;
UPDATE load SET value = value + 1 WHERE id = :id;
COMMIT;
SQL
for count in "${clients[@]}"; do
  "$bin/pgbench" -h 127.0.0.1 -p "$port" -U bench -n -M prepared -c "$count" -j 1 -T "$seconds" -f "$folder/add.sql" --log --log-prefix="$folder/latency" postgres >"$folder/out"
  tps=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$folder/out")
  cat "$folder"/latency.* | awk '{print $3}' | sort -n | awk -v tps="$tps" -v count="$count" '{ v[NR] = $1 } END {
    printf "postgresql %3d clients %9.0f tx/s  p50 %6d us  p99 %6d us\n", count, tps, v[int(NR*0.5)+1], v[int(NR*0.99)+1] }'
  rm -f "$folder"/latency.*
done
