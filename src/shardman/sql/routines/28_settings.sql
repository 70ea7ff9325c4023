-- The settings of the cluster, as code asks for them.

create or replace function shardman.setting(name text, default_value text) returns text
language sql stable parallel safe as $$
    select coalesce((select s.value from shardman.settings s where s.name = setting.name), default_value)
$$;
comment on function shardman.setting(text, text) is 'a setting of the cluster';

create or replace function shardman.bytes_setting(name text, default_value text) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return pg_size_bytes(shardman.setting(bytes_setting.name, bytes_setting.default_value));
exception when invalid_parameter_value or numeric_value_out_of_range then
    return pg_size_bytes(bytes_setting.default_value);
end
$$;
comment on function shardman.bytes_setting(text, text) is
    'a setting of the cluster that is a size, as in 10GB; the default where it makes no sense';
