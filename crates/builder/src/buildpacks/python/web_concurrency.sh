# How many workers a web server such as gunicorn should start: twice the processors and one more, or one for each 256 MB
# of the dyno's memory, whichever is less. A WEB_CONCURRENCY that is set stays as it is.
if [ -z "${WEB_CONCURRENCY:-}" ]; then
    WEB_CONCURRENCY=$(($(nproc) * 2 + 1))
    if [ "$WEB_CONCURRENCY" -gt $((${MEMORY_AVAILABLE:-512} / 256)) ]; then
        WEB_CONCURRENCY=$((${MEMORY_AVAILABLE:-512} / 256))
    fi
    if [ "$WEB_CONCURRENCY" -lt 1 ]; then WEB_CONCURRENCY=1; fi
fi
export WEB_CONCURRENCY
