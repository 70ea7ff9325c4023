-- One word a thing (docs/glossary.md): what the journal and the definitions of tables call partition, cut-over,
-- standby names and channels since. There is no 0005: it was never released.
update shardman.cmd_steps
   set kind = case kind when 'fence_move' then 'cut_over' when 'conversion_fence' then 'conversion_cut_over'
                        when 'standbys' then 'standby_names' else kind end,
       args = replace(replace(replace(replace(args::text, '"slot_key":', '"partition_key":'),
                              '"old_links":', '"old_channels":'), '"new_links":', '"new_channels":'),
                      '"stranded":', '"promoted":')::jsonb
 where kind in ('fence_move', 'conversion_fence', 'standbys', 'converge') or args::text like '%"slot\_key":%';
update shardman.tables
   set definition = definition - 'slot_key' || jsonb_build_object('partition_key', definition -> 'slot_key')
 where definition ? 'slot_key';
