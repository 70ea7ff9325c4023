"""What is known to mean the same on every node, and to change nothing of a session."""

from __future__ import annotations

#: PostgreSQL's own, by name. Others are left to the node that was connected to.
SAFE_FUNCTIONS = frozenset(
    """
    abs acos age any_value array_agg array_append array_cat array_length array_position array_remove
    array_replace array_to_string ascii asin atan atan2 avg bit_and bit_or bit_xor bit_length
    bool_and bool_or btrim cardinality cbrt ceil ceiling char_length character_length chr
    clock_timestamp concat concat_ws corr cos count covar_pop covar_samp cume_dist date date_bin
    date_part date_trunc decode degrees dense_rank div encode every exp extract factorial
    first_value floor format gcd gen_random_uuid generate_series greatest initcap isfinite json_agg
    json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_extract_path json_extract_path_text json_object
    json_object_agg json_object_keys json_strip_nulls json_typeof jsonb_agg jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object
    jsonb_object_agg jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query
    jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set jsonb_strip_nulls
    jsonb_typeof justify_days justify_hours justify_interval lag last_value lcm lead least left
    length like_escape ln log log10 lower lpad ltrim make_date make_interval make_time
    make_timestamp make_timestamptz max md5 min min_scale mod mode now nth_value ntile num_nonnulls
    num_nulls nullif octet_length overlay percent_rank percentile_cont percentile_disc pi position
    power radians range_agg rank regexp_count regexp_instr regexp_like regexp_match
    regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat
    replace reverse right round row_number row_to_json rpad rtrim scale sign sin split_part sqrt
    starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array
    string_to_table strpos substr substring sum tan timezone to_char to_date to_hex to_json to_jsonb
    to_number to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim trim_array
    trim_scale trunc ts_headline ts_rank ts_rank_cd unnest upper var_pop var_samp variance
    websearch_to_tsquery width_bucket plainto_tsquery phraseto_tsquery
    """.split()  # noqa: SIM905
)

#: Those of them that look at several rows.
AGGREGATES = frozenset(
    """
    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp
    every json_agg json_object_agg jsonb_agg jsonb_object_agg max min mode percentile_cont
    percentile_disc range_agg stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance
    """.split()  # noqa: SIM905
)

#: Types that a cast may name: each has the same oid everywhere, and none of them is a name of something.
SAFE_TYPES = frozenset(
    """
    bit bool bpchar bytea cidr date daterange float4 float8 inet int2 int4 int4range int8 int8range
    interval json jsonb jsonpath macaddr numeric numrange text time timestamp timestamptz timetz
    tsquery tsrange tstzrange tsvector uuid varbit varchar
    """.split()  # noqa: SIM905
)

#: Nodes of expressions whose parts are all that matters.
SAFE_NODES = frozenset(
    """
    A_ArrayExpr A_Const A_Indices A_Indirection A_Star BoolExpr BooleanTest CaseExpr CaseWhen
    CoalesceExpr CollateClause GroupingFunc GroupingSet Integer List MinMaxExpr MultiAssignRef
    NullTest ParamRef ResTarget RowExpr SQLValueFunction SetToDefault SortBy String WindowDef
    InferClause IndexElem
    """.split()  # noqa: SIM905
)

#: Parts of a SELECT that are read.
SELECT_FIELDS = frozenset(
    """
    distinctClause targetList fromClause whereClause groupClause groupDistinct havingClause
    windowClause valuesLists sortClause limitOffset limitCount limitOption lockingClause withClause
    op all larg rarg
    """.split()  # noqa: SIM905
)

#: Parts of an INSERT, UPDATE or DELETE that are read.
WRITE_FIELDS = frozenset(
    """
    relation cols selectStmt onConflictClause returningList withClause override targetList
    whereClause fromClause usingClause
    """.split()  # noqa: SIM905
)

#: Parts of a MERGE that are read.
MERGE_FIELDS = frozenset(
    ("relation", "sourceRelation", "joinCondition", "mergeWhenClauses", "returningList")
)

#: Statements that change nothing of a session that matters to the next one.
PLAIN = frozenset(
    """
    CheckPointStmt ClosePortalStmt CommentStmt CopyStmt DeclareCursorStmt ExplainStmt FetchStmt
    GrantStmt GrantRoleStmt LockStmt NotifyStmt RefreshMatViewStmt ReindexStmt TruncateStmt VacuumStmt
    """.split()  # noqa: SIM905
)

#: With SET LOCAL they are set on each node of the transaction: no statement means another thing by them.
HELD_SETTINGS = frozenset(
    """
    idle_in_transaction_session_timeout lock_timeout statement_timeout synchronous_commit
    transaction_timeout work_mem
    """.split()  # noqa: SIM905
)

#: They may change what tables there are; one that is temporary changes the session.
MAKING = frozenset(
    """
    AlterEnumStmt AlterFunctionStmt AlterObjectSchemaStmt AlterOwnerStmt AlterPolicyStmt
    AlterSeqStmt AlterTableStmt AlterTypeStmt CompositeTypeStmt CreateDomainStmt CreateEnumStmt
    CreateFunctionStmt CreatePolicyStmt CreateRangeStmt CreateRoleStmt CreateSchemaStmt
    CreateSeqStmt CreateStmt CreateTableAsStmt CreateTrigStmt DropStmt IndexStmt RenameStmt RuleStmt
    ViewStmt
    """.split()  # noqa: SIM905
)
