#!/usr/bin/env bash
# The runbook that `cargo xtask bench rotation` holds keyroll against: the eight steps by hand, as a competent operator would
# script them. No fixed sleeps, health polled every second, nothing that the steps do not need. Unlike keyroll it proves
# little, undoes nothing, and loses the new values if it is killed between the edit and the ALTER.
#
#   runbook.sh ROOT PROJECT BASE_URL BACKUP_ROOT
set -euo pipefail
umask 077

root=$1 project=$2 base=$3 backups=$4
env_file=$root/.env.production
compose_file=$root/infra/deploy/docker-compose.production.yml

compose() { docker compose -p "$project" --env-file "$env_file" -f "$compose_file" "$@"; }
value() { sed -n "s/^$1=//p" "$env_file"; }
healthy() { curl -fsS -o /dev/null "$base/api/health"; }
# The body goes through standard input: a password in an argument could be seen in the process list.
login() {
    printf '{"email":"%s","password":"%s"}' "$email" "$1" |
        curl -fsS -H 'Content-Type: application/json' --data-binary @- "$base/api/auth/login"
}

# 1. Preflight
compose ps >/dev/null
healthy
role=$(value POSTGRES_USER) database=$(value POSTGRES_DB) email=$(value ADMIN_EMAIL)

# 2. Backup
saved=$backups/$(date -u +%Y%m%dT%H%M%S.%NZ)-runbook
mkdir -p "$saved"
cp -p "$env_file" "$compose_file" "$saved/"
compose exec -T postgres pg_dump -U "$role" -d "$database" -Fc >"$saved/database.dump"

# 3. Generate
generate() { openssl rand -hex 32; }
jwt=$(generate) refresh=$(generate) password=$(generate) admin=$(generate)

# 4. Env file, with the URL that embeds the password. Written in place, so that owner and mode stay.
edited=$(sed \
    -e "s|^JWT_SECRET=.*|JWT_SECRET=$jwt|" \
    -e "s|^JWT_REFRESH_SECRET=.*|JWT_REFRESH_SECRET=$refresh|" \
    -e "s|^POSTGRES_PASSWORD=.*|POSTGRES_PASSWORD=$password|" \
    -e "s|^ADMIN_PASSWORD=.*|ADMIN_PASSWORD=$admin|" \
    -e "s|^\(DATABASE_URL=[^:]*://[^:]*:\)[^@]*@|\1$password@|" "$env_file")
printf '%s\n' "$edited" >"$env_file"

# 5. Database password
compose exec -T postgres psql -q -U "$role" -d "$database" -v ON_ERROR_STOP=1 <<SQL
ALTER ROLE "$role" PASSWORD '$password';
SQL

# 6. Recreate, and wait until everything is healthy
compose up -d --wait
until healthy; do sleep 1; done

# 7. Re-seed the administrator, revoke every open session
compose exec -T api npm run prisma:seed >/dev/null
compose exec -T postgres psql -q -U "$role" -d "$database" -v ON_ERROR_STOP=1 <<'SQL'
UPDATE "AuthSession" SET "revokedAt" = now() WHERE "revokedAt" IS NULL;
SQL

# 8. Verify
healthy
token=$(login "$admin" | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')
for page in /rbac /profile /system /audit-logs; do
    curl -fsS -o /dev/null -H @- "$base$page" <<<"Authorization: Bearer $token"
done
