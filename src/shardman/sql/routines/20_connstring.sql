-- libpq connection strings (PostgreSQL manual, 34.1.1), read in SQL so that a malformed one is an
-- error at the call and a password never reaches the command log.

create or replace function shardman.url_decode(encoded text) returns text
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    bytes bytea := '';
    rest  text := encoded;
    at    int;
begin
    loop
        at := strpos(rest, '%');
        exit when at = 0;
        if substr(rest, at + 1, 2) !~ '^[0-9A-Fa-f]{2}$' then
            raise exception 'malformed connection string: bad percent-encoding'
                using errcode = 'invalid_parameter_value', hint = 'Write a percent sign as %25.';
        end if;
        bytes := bytes || convert_to(left(rest, at - 1), 'UTF8') || decode(substr(rest, at + 1, 2), 'hex');
        rest := substr(rest, at + 3);
    end loop;
    return convert_from(bytes || convert_to(rest, 'UTF8'), 'UTF8');
end
$$;
comment on function shardman.url_decode(text) is 'percent-decoding of a part of a connection URI';

create or replace function shardman.parse_keyword_string(connstring text) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    found_  text[];
    result  jsonb := '{}';
    rest    text := ltrim(connstring, E' \t\n\r');
    value   text;
begin
    while rest <> '' loop
        -- keyword = 'quoted \' value'  or  keyword = plain\ value
        found_ := regexp_match(rest, $re$^([A-Za-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'(?=\s|$)|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|(?=\s|$))\s*(.*)$re$);
        if found_ is null then
            raise exception 'malformed connection string: keyword=value expected'
                using errcode = 'invalid_parameter_value',
                      hint = 'Write it as host=... port=... dbname=... user=... or as postgresql://user@host:port/dbname.';
        end if;
        value := found_[2];
        if left(value, 1) = '''' then
            value := substr(value, 2, length(value) - 2);
        end if;
        result := result || jsonb_build_object(lower(found_[1]), regexp_replace(value, '\\(.)', '\1', 'g'));
        rest := found_[3];
    end loop;
    return result;
end
$$;
comment on function shardman.parse_keyword_string(text) is 'the parameters of a connection string of the keyword=value form';

create or replace function shardman.parse_uri(connstring text) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    found_ text[] := regexp_match(connstring, '^postgres(?:ql)?://(?:([^@/?#]*)@)?([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?$');
    login  text[];
    host   text;
    pair   text;
    hosts  text[] := '{}';
    ports  text[] := '{}';
    result jsonb := '{}';
begin
    -- An @ in the name of the database is the tail of a password that had a slash: it must not be shown.
    if found_ is null or strpos(found_[3], '@') > 0 then
        raise exception 'malformed connection string: not a URI that libpq understands'
            using errcode = 'invalid_parameter_value',
                  hint = 'Write it as postgresql://user@host:port/dbname; in a password write / ? # @ : % as %2F %3F %23 %40 %3A %25.';
    end if;
    if coalesce(found_[1], '') <> '' then
        login := regexp_match(found_[1], '^([^:]*)(?::(.*))?$');
        if login[1] <> '' then
            result := result || jsonb_build_object('user', shardman.url_decode(login[1]));
        end if;
        if login[2] is not null then
            result := result || jsonb_build_object('password', shardman.url_decode(login[2]));
        end if;
    end if;
    foreach host in array string_to_array(found_[2], ',') loop
        login := regexp_match(host, '^(\[[^]]*\]|[^:]*)(?::([0-9]*))?$');
        -- An @ here is the tail of a password that was not encoded: it must not be taken for a host and shown.
        if login is null or strpos(host, '@') > 0 then
            raise exception 'malformed connection string: bad host or port in the URI'
                using errcode = 'invalid_parameter_value',
                      hint = 'Write it as postgresql://user@host:port/dbname; in a password write / ? # @ : % as %2F %3F %23 %40 %3A %25.';
        end if;
        hosts := hosts || shardman.url_decode(trim(login[1], '[]'));
        ports := ports || coalesce(login[2], '');
    end loop;
    if array_to_string(hosts, '') <> '' then
        result := result || jsonb_build_object('host', array_to_string(hosts, ','));
    end if;
    if array_to_string(ports, '') <> '' then
        result := result || jsonb_build_object('port', array_to_string(ports, ','));
    end if;
    if coalesce(found_[3], '') <> '' then
        result := result || jsonb_build_object('dbname', shardman.url_decode(found_[3]));
    end if;
    foreach pair in array string_to_array(coalesce(found_[4], ''), '&') loop
        continue when pair = '';
        login := regexp_match(pair, '^([^=]+)=(.*)$');
        if login is null then
            raise exception 'malformed connection string: keyword=value expected behind the question mark'
                using errcode = 'invalid_parameter_value', hint = 'Write it as postgresql://user@host:port/dbname?keyword=value.';
        end if;
        result := result || jsonb_build_object(lower(shardman.url_decode(login[1])), shardman.url_decode(login[2]));
    end loop;
    return result;
end
$$;
comment on function shardman.parse_uri(text) is 'the parameters of a connection URI, several hosts and IPv6 addresses included';

create or replace function shardman.parse_connstring(connstring text) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    known constant text[] := array[
        'host', 'hostaddr', 'port', 'dbname', 'user', 'password', 'passfile', 'require_auth', 'channel_binding',
        'connect_timeout', 'client_encoding', 'options', 'application_name', 'fallback_application_name',
        'keepalives', 'keepalives_idle', 'keepalives_interval', 'keepalives_count', 'tcp_user_timeout',
        'replication', 'gssencmode', 'sslmode', 'sslnegotiation', 'requiressl', 'sslcompression', 'sslcert', 'sslkey',
        'sslkeylogfile', 'sslpassword', 'sslcertmode', 'sslrootcert', 'sslcrl', 'sslcrldir', 'sslsni', 'requirepeer',
        'ssl_min_protocol_version', 'ssl_max_protocol_version', 'min_protocol_version', 'max_protocol_version',
        'krbsrvname', 'gsslib', 'gssdelegation', 'scram_client_key', 'scram_server_key', 'service', 'servicefile',
        'target_session_attrs', 'load_balance_hosts', 'oauth_issuer', 'oauth_client_id', 'oauth_client_secret', 'oauth_scope'];
    result  jsonb;
    keyword text;
begin
    if btrim(connstring, E' \t\n\r') = '' then
        raise exception 'the connection string is empty'
            using errcode = 'invalid_parameter_value',
                  hint = 'Write it as host=... port=... dbname=... user=... or as postgresql://user@host:port/dbname.';
    end if;
    result := case when connstring ~ '^postgres(ql)?://' then shardman.parse_uri(connstring)
                   else shardman.parse_keyword_string(connstring) end;
    for keyword in select jsonb_object_keys(result) loop
        if keyword <> all (known) then
            -- Where there is a password, what looks like a parameter may be the rest of it.
            raise exception 'malformed connection string: libpq has no %',
                  case when strpos(connstring, '@') > 0 or result ?| shardman.secret_parameters() then 'such parameter'
                       else format('parameter "%s"', keyword) end
                using errcode = 'invalid_parameter_value',
                      hint = 'See "Parameter Key Words" in the PostgreSQL manual, section 34.1.2.';
        end if;
    end loop;
    return result;
end
$$;
comment on function shardman.parse_connstring(text) is 'the parameters of any libpq connection string';

create or replace function shardman.format_connstring(params jsonb) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select coalesce(string_agg(key || '=' ||
               case when value ~ '^[^\s''\\]+$' then value
                    else '''' || regexp_replace(value, '([''\\])', '\\\1', 'g') || '''' end,
               ' ' order by array_position(array['host', 'hostaddr', 'port', 'dbname', 'user'], key), key), '')
      from jsonb_each_text(params)
$$;
comment on function shardman.format_connstring(jsonb) is 'a keyword=value connection string of these parameters';

create or replace function shardman.same_address(one text, other text) returns bool
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select bool_and(coalesce(a ->> p.name, p.standard) is not distinct from coalesce(b ->> p.name, p.standard))
      from (select shardman.parse_connstring(one), shardman.parse_connstring(other)) as params (a, b),
           (values ('host', null), ('hostaddr', null), ('port', '5432'), ('dbname', null), ('service', null)) as p (name, standard)
$$;
comment on function shardman.same_address(text, text) is 'whether two connection strings name the same server and database in the same words';

create or replace function shardman.secret_parameters() returns text[]
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select array['password', 'sslpassword', 'oauth_client_secret', 'scram_client_key', 'scram_server_key']
$$;
comment on function shardman.secret_parameters() is 'the parameters of a connection string that are never shown';
