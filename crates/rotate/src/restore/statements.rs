//! What `psql` is told to do to whole databases. Names come in as its variables, which it quotes; no statement holds a value.

/// Makes the database beside like the present one, but empty.
pub(super) const CREATE: &str = r"
SELECT format('CREATE DATABASE %I WITH TEMPLATE template0 OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L',
         :'side', pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype)
       || CASE to_jsonb(d) ->> 'datlocprovider'
            WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %L',
                                 coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'))
            WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', to_jsonb(d) ->> 'datlocale')
            ELSE '' END
  FROM pg_database d WHERE d.datname = :'live' \gexec
";

/// Takes over what belongs to a database and is in no dump of it: its limit, its rights, its settings.
pub(super) const TAKE_OVER: &str = r"
SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', :'side', datconnlimit) FROM pg_database WHERE datname = :'live' \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'side')
  FROM pg_database WHERE datname = :'live' AND datacl IS NOT NULL \gexec
SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, :'side',
              CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = :'live' AND a.grantee <> d.datdba \gexec
SELECT format('ALTER %s SET %I TO %s',
              CASE s.setrole WHEN 0 THEN format('DATABASE %I', :'side')
                             ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(s.setrole), :'side') END,
              split_part(c, '=', 1),
              CASE WHEN split_part(c, '=', 1) IN ('search_path', 'temp_tablespaces', 'local_preload_libraries',
                     'session_preload_libraries', 'unix_socket_directories')
                   THEN substr(c, strpos(c, '=') + 1) ELSE quote_literal(substr(c, strpos(c, '=') + 1)) END)
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
 WHERE d.datname = :'live' \gexec
";

/// Counts tables and rows, for comparing with the dump's table of contents.
pub(super) const COUNT: &str = r"
SELECT count(*),
       coalesce(sum((xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I.%I', n.nspname, c.relname),
                                                         false, true, '')))[1]::text::bigint), 0)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%';
";

/// Ends every other session on both databases; how many there are.
pub(super) const CLEAR: &str = "
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname IN (:'live', :'side') AND pid <> pg_backend_pid() AND backend_type <> 'walsender';
";

/// Ends every other session of this name; how many there are.
pub(super) const END_OWN: &str = "
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name = :'own' AND pid <> pg_backend_pid() AND backend_type = 'client backend';
";

/// Both at once, or neither.
pub(super) const SWAP: &str = r#"
BEGIN;
ALTER DATABASE :"live" RENAME TO :"kept";
ALTER DATABASE :"side" RENAME TO :"live";
COMMIT;
"#;
