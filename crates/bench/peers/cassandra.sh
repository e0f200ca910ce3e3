#!/usr/bin/env bash
# Apache Cassandra on loopback, and `bench --door cql` against it and then, with the same options, against Tessera: first
# as fast as each can, then at a rate that both keep up with. Needs JDK 17 and Maven, which brings Cassandra's jars (and
# keeps them where it keeps all jars); a cluster lives in a temporary directory that is removed. What is not set below is
# as Cassandra ships it, but for assertions: those are off, as they would only slow it down.
# usage: cassandra.sh [NODES [periodic|synced [LEVELS [RATE [SECONDS]]]]]    LEVELS: 1 is ONE, 4 is QUORUM; "1 4" is both
# environment: CASSANDRA_VERSION, CASSANDRA_HEAP, CASSANDRA_JARS (a directory to keep the jars in), CASSANDRA_PORT,
# CASSANDRA_WARM_UP (seconds of load before anything is measured), BENCH and TESSERA (binaries)
set -euo pipefail
nodes=${1:-1}
durability=${2:-periodic}
levels=${3:-1}
rate=${4:-5000}
seconds=${5:-10}
version=${CASSANDRA_VERSION:-5.0.9}
port=${CASSANDRA_PORT:-59042}
warm_up=${CASSANDRA_WARM_UP:-60}
root=$(cd "$(dirname "$0")/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
bench=${BENCH:-$target/release/bench}
tessera=${TESSERA:-$target/release/tessera}
heap=${CASSANDRA_HEAP:-$([ "$nodes" = 1 ] && echo 4G || echo 1536M)}

folder=$(mktemp -d)
jars=${CASSANDRA_JARS:-$folder/jars}
pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}
trap 'stop; rm -rf "$folder"' EXIT

if ! [ -e "$jars/cassandra-all-$version.jar" ]; then
  cat >"$folder/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>peers</groupId><artifactId>cassandra</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
  mvn -B -q -f "$folder/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars"
fi

cat >"$folder/logback.xml" <<'XML'
<configuration>
  <appender name="LOG" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="LOG"/></root>
</configuration>
XML

# The JVM's options are those of Cassandra's jvm-server.options and jvm17-server.options.
java_options=(
  "-Xms$heap" "-Xmx$heap" -Xss256k -XX:+AlwaysPreTouch -XX:+UseThreadPriorities -XX:+UseTLAB -XX:+ResizeTLAB -XX:+UseNUMA
  -XX:+PerfDisableSharedMem -XX:+UseG1GC -XX:+ParallelRefProcEnabled -XX:MaxTenuringThreshold=1
  -XX:G1HeapRegionSize=16m -XX:G1RSetUpdatingPauseTimePercent=5 -XX:MaxGCPauseMillis=300
  -XX:InitiatingHeapOccupancyPercent=70 -Djava.net.preferIPv4Stack=true -Djdk.attach.allowAttachSelf=true
  -Dio.netty.tryReflectionSetAccessible=true -Dio.netty.allocator.useCacheForAllThreads=true
  -Dio.netty.allocator.maxOrder=11
)
for name in java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry \
  java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc \
  jdk.compiler/com.sun.tools.javac.file jdk.attach/sun.tools.attach; do
  java_options+=(--add-exports "$name=ALL-UNNAMED")
done
for name in java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref \
  java.base/jdk.internal.reflect java.base/jdk.internal.math java.base/jdk.internal.module \
  java.base/jdk.internal.util.jar jdk.management/com.sun.management.internal java.base/sun.nio.ch java.base/java.io \
  java.base/java.lang.reflect jdk.compiler/com.sun.tools.javac java.base/java.lang java.base/java.util; do
  java_options+=(--add-opens "$name=ALL-UNNAMED")
done

start() { # NUMBER
  local address=127.0.0.$1 home=$folder/$1 sync
  case $durability in
    periodic) sync=$'commitlog_sync: periodic\ncommitlog_sync_period: 10000ms' ;;
    synced) sync='commitlog_sync: batch' ;;
    *) echo "durability is periodic or synced, not $durability" >&2; exit 1 ;;
  esac
  mkdir -p "$home"
  cat >"$home/cassandra.yaml" <<YAML
cluster_name: bench
num_tokens: 16
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
auto_bootstrap: false
listen_address: $address
rpc_address: $address
storage_port: $((port + 1))
native_transport_port: $port
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "127.0.0.1:$((port + 1))"
data_file_directories: [$home/data]
commitlog_directory: $home/commitlog
hints_directory: $home/hints
saved_caches_directory: $home/saved_caches
cdc_raw_directory: $home/cdc_raw
$sync
YAML
  java "${java_options[@]}" -javaagent:"$(echo "$jars"/jamm-*.jar)" -Dcassandra.config="file://$home/cassandra.yaml" \
    -Dcassandra.storagedir="$home" -Dlogback.configurationFile="file://$folder/logback.xml" \
    -Dcassandra.ring_delay_ms=3000 -cp "$jars/*" org.apache.cassandra.service.CassandraDaemon >"$home/log" 2>&1 &
  local pid=$!
  pids+=("$pid")
  until (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; do
    if ! kill -0 "$pid" 2>/dev/null; then
      echo "Cassandra has stopped:" >&2
      tail -40 "$home/log" >&2
      exit 1
    fi
    sleep 1
  done
}

addresses=()
for number in $(seq "$nodes"); do
  start "$number"
  addresses+=("127.0.0.$number:$port")
done
cassandra=(--address "$(IFS=, && echo "${addresses[*]}")" --pid "$(IFS=, && echo "${pids[*]}")")
factor=$((nodes < 3 ? nodes : 3))
cassandra+=(--keyspace-options "WITH replication = {'class': 'SimpleStrategy', 'replication_factor': $factor}")
load=(--door cql --durability "$durability")

echo "# Cassandra $version, $nodes nodes, $durability; load before: $(cut -d' ' -f1-3 /proc/loadavg)"
"$bench" "${load[@]}" "${cassandra[@]}" --reads 50 --warm-up "$warm_up" --seconds 1 >/dev/null
for level in $levels; do
  echo "## level $level: closed loop, then $rate operations a second"
  "$bench" "${load[@]}" "${cassandra[@]}" --consistency "$level" --seconds "$seconds" --reads 0,100,95,50
  "$bench" "${load[@]}" "${cassandra[@]}" --consistency "$level" --seconds "$seconds" --reads 0,100,95,50 --rate "$rate"
done
stop

echo "# Tessera, $nodes nodes, $durability; load before: $(cut -d' ' -f1-3 /proc/loadavg)"
tessera=(--binary "$tessera" --nodes "$nodes")
for level in $levels; do
  echo "## level $level: closed loop, then $rate operations a second"
  "$bench" "${load[@]}" "${tessera[@]}" --consistency "$level" --seconds "$seconds" --reads 0,100,95,50
  "$bench" "${load[@]}" "${tessera[@]}" --consistency "$level" --seconds "$seconds" --reads 0,100,95,50 --rate "$rate"
done
