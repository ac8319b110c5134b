#!/usr/bin/env bash
# A real Apache Kafka without Docker: resolved by Maven, on loopback, in one folder that can be deleted.
#
#   kafka.sh resolve                 get the jars into target/kafka/lib, once
#   kafka.sh start [NODES [FOLDER]]  start one node or three; prints their addresses
#   kafka.sh stop [FOLDER]           stop them and delete what they wrote
#
# FOLDER (default target/kafka/run) holds `bootstrap`, the addresses; `bootstrap-sasl`, the same nodes where clients sign
# in with SCRAM-SHA-256 (user `harrier`, password `hunting`; user `stranger`, password `strange`, may do nothing) or with
# OAUTHBEARER (any token, unsigned, with `sub` of `harrier`); `bootstrap-tls`, the same with TLS and the certificate in
# ca.pem; and node-N/{kafka.log,pid,server.properties,data}.
#
# KAFKA_SERVER_SETTINGS: lines appended to every server.properties.
# KAFKA_HOST: the address where clients reach the nodes without signing in; 127.0.0.1 if it is not given.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$(cd "$here/../.." && pwd)/target}/kafka
lib=$target/lib
# A node of a development cluster holds little: this is enough, and three of them fit into a small machine.
heap=${KAFKA_HEAP:--Xms128m -Xmx512m}
host=${KAFKA_HOST:-127.0.0.1}
# Of a key that lives as long as a development cluster, on loopback.
key_password=development

missing() {
  command -v java >/dev/null || { echo "skipped: no Java 17 and Maven (java is not there)"; return 0; }
  # java -version says: openjdk version "17.0.15" ...
  local major
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
  [ "${major:-0}" -ge 17 ] || { echo "skipped: no Java 17 and Maven (java is ${major:-unknown})"; return 0; }
  [ -e "$lib/complete" ] || command -v mvn >/dev/null \
    || { echo "skipped: no Java 17 and Maven (mvn is not there)"; return 0; }
  return 1
}

resolve() {
  local why
  if why=$(missing); then echo "$why" >&2; exit 69; fi
  mkdir -p "$target"
  # Several test programs may want the jars at once.
  exec 9>"$target/lock"
  flock 9
  if [ ! -e "$lib/complete" ] || ! cmp -s "$here/pom.xml" "$lib/complete"; then
    rm -rf "$lib"
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$lib" >&2
    cp "$here/pom.xml" "$lib/complete"
  fi
  flock -u 9
}

# A port that nobody listens on, below those the system gives to clients.
free_port() {
  local port
  while :; do
    port=$((10000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# To be called in a subshell, which becomes the JVM: so that the id kept is the JVM's.
run_java() {
  # shellcheck disable=SC2086 # the heap is two words
  exec java $heap -Dlog4j2.configurationFile="$here/log4j2.properties" -Dharrier.kafka.log="$1" -cp "$lib/*" "${@:2}"
}

# A key for all nodes, and its certificate, which is its own authority.
certificate() {
  local keytool=(keytool -keystore "$1/keys.p12" -storetype PKCS12 -storepass "$key_password" -alias node)
  "${keytool[@]}" -genkeypair -keyalg EC -groupname secp256r1 -dname CN=harrier-development -validity 30 \
    -ext san=ip:127.0.0.1,dns:localhost -ext bc:c > "$1/keytool.log" 2>&1 \
    && "${keytool[@]}" -exportcert -rfc -file "$1/ca.pem" >> "$1/keytool.log" 2>&1 \
    || { cat "$1/keytool.log" >&2; exit 1; }
}

start() {
  local nodes=${1:-1} folder=${2:-$target/run}
  case $nodes in 1|3) ;; *) echo "one node or three" >&2; exit 2 ;; esac
  resolve
  [ ! -e "$folder/bootstrap" ] || { echo "$folder is in use: stop it first" >&2; exit 1; }
  mkdir -p "$folder"
  local voters="" bootstrap="" sasl="" tls="" node
  local -a client=() signed=() secure=() controller=()
  for node in $(seq "$nodes"); do
    client[node]=$(free_port); signed[node]=$(free_port); secure[node]=$(free_port); controller[node]=$(free_port)
    voters+=${voters:+,}$node@127.0.0.1:${controller[node]}
    bootstrap+=${bootstrap:+,}$host:${client[node]}
    sasl+=${sasl:+,}127.0.0.1:${signed[node]}
    tls+=${tls:+,}127.0.0.1:${secure[node]}
  done
  certificate "$folder"
  # Any 16 bytes in base64.
  local cluster=aGFycmllci1kZXYta2Fma2E
  for node in $(seq "$nodes"); do
    local home=$folder/node-$node
    mkdir -p "$home"
    cat > "$home/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://$host:${client[node]},SASL_PLAINTEXT://127.0.0.1:${signed[node]},SSL://127.0.0.1:${secure[node]},CONTROLLER://127.0.0.1:${controller[node]}
advertised.listeners=PLAINTEXT://$host:${client[node]},SASL_PLAINTEXT://127.0.0.1:${signed[node]},SSL://127.0.0.1:${secure[node]}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL
ssl.keystore.location=$folder/keys.p12
ssl.keystore.type=PKCS12
ssl.keystore.password=$key_password
sasl.enabled.mechanisms=SCRAM-SHA-256,OAUTHBEARER
listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:harrier
log.dirs=$home/data
auto.create.topics.enable=false
# Small, because a development cluster is young and its clients few.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
offsets.topic.replication.factor=$nodes
transaction.state.log.replication.factor=$nodes
transaction.state.log.min.isr=$(( nodes > 1 ? 2 : 1 ))
share.coordinator.state.topic.replication.factor=$nodes
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# So that a test need not wait for the six seconds that is the least otherwise.
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
${KAFKA_SERVER_SETTINGS:-}
PROPERTIES
    (run_java "$home/kafka.log" kafka.tools.StorageTool format -t $cluster -c "$home/server.properties" \
      --add-scram 'SCRAM-SHA-256=[name=harrier,password=hunting]' \
      --add-scram 'SCRAM-SHA-256=[name=stranger,password=strange]') > "$home/format.log" 2>&1 \
      || { cat "$home/format.log" >&2; exit 1; }
    start_node "$home"
  done
  for node in $(seq "$nodes"); do await_node "$folder/node-$node" "${client[node]}"; done
  echo "$sasl" > "$folder/bootstrap-sasl"
  echo "$tls" > "$folder/bootstrap-tls"
  echo "$bootstrap" > "$folder/bootstrap"
  echo "$bootstrap"
}

# Also used to start a node again that was killed: `kafka.sh start-node FOLDER/node-N`.
start_node() {
  # Without our lock, which would last as long as the node.
  run_java "$1/kafka.log" kafka.Kafka "$1/server.properties" > "$1/out.log" 2>&1 < /dev/null 9>&- &
  echo $! > "$1/pid"
}

await_node() {
  local _
  for _ in $(seq 600); do
    (exec 3<>"/dev/tcp/$host/$2") 2>/dev/null && return
    kill -0 "$(cat "$1/pid")" 2>/dev/null || break
    sleep 0.1
  done
  echo "Kafka did not start; see $1/kafka.log" >&2
  tail -5 "$1/out.log" "$1/kafka.log" >&2 || true
  exit 1
}

stop() {
  local folder=${1:-$target/run} pid
  for pid in "$folder"/node-*/pid; do
    [ -e "$pid" ] || continue
    # Nothing that it holds is wanted any more.
    kill -9 "$(cat "$pid")" 2>/dev/null || true
  done
  rm -rf "$folder"
}

case ${1:-} in
  resolve) resolve ;;
  start) start "${@:2}" ;;
  start-node) start_node "$2"; host=$(sed -n 's/^advertised.listeners=PLAINTEXT:..\([0-9.]*\):.*/\1/p' "$2/server.properties"); await_node "$2" "$(sed -n 's/^advertised.listeners=PLAINTEXT:..\([0-9.]*\):\([0-9]*\).*/\2/p' "$2/server.properties")" ;;
  stop) stop "${@:2}" ;;
  *) sed -n '2,13p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
