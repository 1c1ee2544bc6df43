#!/bin/bash
# The habits of the docker-library image that matter to a rotation, written anew:
#  - POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE, never both) is read only while PGDATA holds no PG_VERSION;
#  - initdb leaves `trust` for the socket and loopback, then `host all all all <method>` is appended, and the first match wins;
#  - /docker-entrypoint-initdb.d runs once, against a server that listens on the socket only;
#  - the server runs as the postgres user and as process 1.
set -Eeuo pipefail

# file_env NAME [DEFAULT]: NAME from the environment, or from the file that NAME_FILE names.
file_env() {
	local name=$1 file=$1_FILE value=${2:-}
	if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
		echo >&2 "error: both $name and $file are set (but are exclusive)"
		exit 1
	fi
	if [ -n "${!name:-}" ]; then
		value=${!name}
	elif [ -n "${!file:-}" ]; then
		value=$(<"${!file}")
	fi
	export "$name=$value"
	unset "$file"
}

run_sql() {
	PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"
}

first_start() {
	file_env POSTGRES_PASSWORD
	file_env POSTGRES_USER postgres
	file_env POSTGRES_DB "$POSTGRES_USER"
	file_env POSTGRES_INITDB_ARGS
	: "${POSTGRES_HOST_AUTH_METHOD:=}"
	if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
		echo >&2 'error: the database is uninitialized and POSTGRES_PASSWORD is not set'
		exit 1
	fi

	# shellcheck disable=SC2086 # the arguments are meant to be split
	initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
		--encoding=UTF8 --locale=C.UTF-8 $POSTGRES_INITDB_ARGS
	local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption "$@")}
	printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"

	PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
	if [ "$POSTGRES_DB" != postgres ]; then
		run_sql --dbname postgres --set db="$POSTGRES_DB" <<-'SQL'
			CREATE DATABASE :"db";
		SQL
	fi
	local script
	for script in /docker-entrypoint-initdb.d/*; do
		case $script in
			*.sh) if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
			*.sql) run_sql --dbname "$POSTGRES_DB" -f "$script" ;;
		esac
	done
	PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -m fast -w stop
	echo 'PostgreSQL init process complete; ready for start up.'
}

# `-c name=value` alone means arguments for the server, as in the original.
if [ "${1:0:1}" = - ]; then
	set -- postgres "$@"
fi
if [ "$1" = postgres ]; then
	if [ "$(id -u)" = 0 ]; then
		mkdir -p "$PGDATA"
		find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
		chmod 700 "$PGDATA"
		exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$BASH_SOURCE" "$@"
	fi
	if [ ! -s "$PGDATA/PG_VERSION" ]; then
		first_start "${@:2}"
	fi
fi
exec "$@"
