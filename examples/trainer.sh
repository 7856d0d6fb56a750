#!/bin/sh
# A trainer that Paceline cannot start, in shell with curl: it asks a server for work over HTTP.
# The training is made up: the accuracy follows a formula with noise.
#
#     PACELINE_TOKEN=... sh trainer.sh http://127.0.0.1:8080 JOB
#
# Submit examples/remote_trainer.toml first; the answer has the number JOB.
set -eu
api=$1/api/v1 job=$2 name="$(hostname)-$$-$(date +%s)"

post() {  # path, body: prints the answer; tries again while the server cannot be reached
    curl --silent --show-error --fail-with-body --retry 8 --retry-connrefused --max-time 60 \
        -H "Authorization: Bearer $PACELINE_TOKEN" -H "Content-Type: application/json" -d "$2" "$api$1"
}
text() { printf '%s' "$2" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }      # a text in an answer
number() { printf '%s' "$2" | sed -n "s/.*\"$1\":\([-0-9.e]*\).*/\1/p"; }     # a number in an answer

train() {  # answer with a slice: trains until the server says otherwise
    slice=$(number slice_id "$1") line=$(number next_number "$1") run=$(text run "$1")
    batch=$(number batch_size "$1") rate=$(number learning_rate "$1")
    checkpoint=$(text checkpoint "$1") samples=0 answer=continue
    if [ -n "$checkpoint" ]; then samples=$(cat "$checkpoint"); fi
    while [ "$answer" = continue ]; do
        sleep 0.1                                                             # 50 steps of training
        samples=$((samples + 50 * batch))
        value=$(awk -v n="$samples" -v b="$batch" -v r="$rate" -v s="$line" 'BEGIN {
            srand(s); scale = 4000 * (1 + b / 256) * (1 + log(r / 0.1) ^ 2)
            print 1 - 0.9 * exp(-n / scale) + 0.004 * (rand() - 0.5) }')
        printf '%s' "$samples" > "$run.txt"
        body="{\"number\": $line, \"checkpoint\": \"$PWD/$run.txt\",
               \"lines\": [{\"samples\": $samples, \"accuracy\": $value}]}"
        answer=$(text answer "$(post "/slices/$slice/reports" "$body")")
        line=$((line + 1))
    done
    if [ "$answer" = stop ]; then
        post "/slices/$slice/finish" "{\"end\": \"paused\", \"checkpoint\": \"$PWD/$run.txt\"}" > /dev/null
    fi
}

while true; do
    asked=$(post "/jobs/$job/ask" "{\"trainer\": \"$name\"}")
    case $(text state "$asked") in
        slice) train "$asked" ;;
        wait) sleep "$(number retry_seconds "$asked")" ;;
        ended) text job_state "$asked"; exit ;;
    esac
done
