# How many processes a web server should fork: the dyno's memory over what one process is said to need (WEB_MEMORY, MB).
# A WEB_CONCURRENCY that is set stays as it is.
_dozen_memory() {
    local file value
    for file in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do
        if [ -r "$file" ] && read -r value <"$file" && [ "$value" != max ] && [ "${#value}" -lt 16 ]; then
            echo $((value / 1048576))
            return
        fi
    done
    echo 512
}
export MEMORY_AVAILABLE="${MEMORY_AVAILABLE:-$(_dozen_memory)}"
if [ -z "${WEB_MEMORY:-}" ]; then
    if [ "$MEMORY_AVAILABLE" -gt 16384 ]; then WEB_MEMORY=2048; else WEB_MEMORY=512; fi
fi
export WEB_MEMORY
if [ -z "${WEB_CONCURRENCY:-}" ]; then
    WEB_CONCURRENCY=$((MEMORY_AVAILABLE / WEB_MEMORY))
    if [ "$WEB_CONCURRENCY" -lt 1 ]; then WEB_CONCURRENCY=1; fi
    if [ "$WEB_CONCURRENCY" -gt 200 ]; then WEB_CONCURRENCY=200; fi
fi
export WEB_CONCURRENCY
unset -f _dozen_memory
