#!/bin/sh
# The greylist of 2003: a directory a client, a file a triplet, its age by find.
#
#   checker.sh SENDER RECIPIENT        GREYLIST and TCPREMOTEIP in the environment
directory=$GREYLIST/$TCPREMOTEIP
name=$1:$2
case $name in
*/*)
    name=$(printf '%s' "$name" | tr / _)
    ;;
esac
if [ -e "$directory/$name" ]; then
    if [ -n "$(find "$directory/$name" -mmin +5)" ]; then
        echo "checker: accept client=$TCPREMOTEIP sender=$1 recipient=$2" >&2
        exit 0
    fi
else
    [ -d "$directory" ] || mkdir "$directory"
    : >"$directory/$name"
fi
echo "checker: defer client=$TCPREMOTEIP sender=$1 recipient=$2" >&2
exit 111
