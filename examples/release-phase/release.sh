#!/bin/sh
# Runs before a release is put in force. Whatever it prints is the release's output.
echo "release: migrating for ${HEROKU_RELEASE_VERSION:-an unknown release} (${SOURCE_VERSION:-no commit})"
if [ -n "$FAIL_RELEASE" ]; then
    echo "release: FAIL_RELEASE is set, failing" >&2
    exit 1
fi
echo "release: done"
