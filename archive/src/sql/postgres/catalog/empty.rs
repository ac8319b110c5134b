//! Tables of `pg_catalog` that have no rows: what an archive does not have. Their columns are those that clients name.

/// Each with its columns, as in [`super::tables::fields`].
const EMPTY: &[(&str, &str)] = &[
    ("pg_attrdef", "oid:i adrelid:i adnum:i adbin:t"),
    ("pg_auth_members", "roleid:i member:i grantor:i admin_option:b"),
    ("pg_cast", "oid:i castsource:i casttarget:i castfunc:i castcontext:t castmethod:t"),
    (
        "pg_collation",
        "oid:i collname:t collnamespace:i collowner:i collprovider:t collencoding:i collcollate:t collctype:t",
    ),
    (
        "pg_constraint",
        "oid:i conname:t connamespace:i contype:t condeferrable:b condeferred:b convalidated:b conrelid:i contypid:i \
         conindid:i conparentid:i confrelid:i confupdtype:t confdeltype:t confmatchtype:t conislocal:b coninhcount:i \
         connoinherit:b conkey:l confkey:l conbin:t",
    ),
    ("pg_depend", "classid:i objid:i objsubid:i refclassid:i refobjid:i refobjsubid:i deptype:t"),
    ("pg_enum", "oid:i enumtypid:i enumsortorder:i enumlabel:t"),
    ("pg_event_trigger", "oid:i evtname:t evtevent:t evtowner:i evtfoid:i evtenabled:t evttags:l"),
    (
        "pg_extension",
        "oid:i extname:t extowner:i extnamespace:i extrelocatable:b extversion:t extconfig:l extcondition:l",
    ),
    ("pg_foreign_data_wrapper", "oid:i fdwname:t fdwowner:i fdwhandler:i fdwvalidator:i fdwoptions:l"),
    ("pg_foreign_server", "oid:i srvname:t srvowner:i srvfdw:i srvtype:t srvversion:t srvoptions:l"),
    ("pg_foreign_table", "ftrelid:i ftserver:i ftoptions:l"),
    (
        "pg_index",
        "indexrelid:i indrelid:i indnatts:i indnkeyatts:i indisunique:b indisprimary:b indisexclusion:b indimmediate:b \
         indisclustered:b indisvalid:b indcheckxmin:b indisready:b indislive:b indisreplident:b indkey:l indcollation:l \
         indclass:l indoption:l indexprs:t indpred:t",
    ),
    ("pg_indexes", "schemaname:t tablename:t indexname:t tablespace:t indexdef:t"),
    ("pg_inherits", "inhrelid:i inhparent:i inhseqno:i inhdetachpending:b"),
    ("pg_language", "oid:i lanname:t lanowner:i lanispl:b lanpltrusted:b"),
    ("pg_locks", "locktype:t database:i relation:i pid:i mode:t granted:b"),
    ("pg_matviews", "schemaname:t matviewname:t matviewowner:t tablespace:t hasindexes:b ispopulated:b definition:t"),
    ("pg_opclass", "oid:i opcmethod:i opcname:t opcnamespace:i opcowner:i opcfamily:i opcintype:i opcdefault:b"),
    ("pg_operator", "oid:i oprname:t oprnamespace:i oprowner:i oprkind:t oprleft:i oprright:i oprresult:i oprcode:t"),
    ("pg_partitioned_table", "partrelid:i partstrat:t partnatts:i partdefid:i partattrs:l partexprs:t"),
    ("pg_policy", "oid:i polname:t polrelid:i polcmd:t polpermissive:b polroles:l polqual:t polwithcheck:t"),
    (
        "pg_proc",
        "oid:i proname:t pronamespace:i proowner:i prolang:i procost:i prorows:i provariadic:i prokind:t prosecdef:b \
         proleakproof:b proisstrict:b proretset:b provolatile:t proparallel:t pronargs:i pronargdefaults:i prorettype:i \
         proargtypes:l proallargtypes:l proargmodes:l proargnames:l prosrc:t",
    ),
    ("pg_publication", "oid:i pubname:t pubowner:i puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b"),
    ("pg_publication_namespace", "oid:i pnpubid:i pnnspid:i"),
    ("pg_publication_rel", "oid:i prpubid:i prrelid:i prqual:t prattrs:l"),
    ("pg_range", "rngtypid:i rngsubtype:i rngmultitypid:i rngcollation:i rngsubopc:i rngcanonical:t rngsubdiff:t"),
    ("pg_rewrite", "oid:i rulename:t ev_class:i ev_type:t ev_enabled:t is_instead:b ev_qual:t ev_action:t"),
    ("pg_sequence", "seqrelid:i seqtypid:i seqstart:i seqincrement:i seqmax:i seqmin:i seqcache:i seqcycle:b"),
    ("pg_sequences", "schemaname:t sequencename:t sequenceowner:t data_type:t start_value:i last_value:i"),
    ("pg_shdescription", "objoid:i classoid:i description:t"),
    ("pg_stat_activity", "datid:i datname:t pid:i usename:t application_name:t client_addr:t state:t query:t"),
    ("pg_stat_user_tables", "relid:i schemaname:t relname:t seq_scan:i n_live_tup:i n_dead_tup:i"),
    ("pg_statistic_ext", "oid:i stxrelid:i stxname:t stxnamespace:i stxowner:i stxstattarget:i stxkeys:l stxkind:l"),
    ("pg_trigger", "oid:i tgrelid:i tgparentid:i tgname:t tgfoid:i tgtype:i tgenabled:t tgisinternal:b tgconstraint:i"),
    ("pg_ts_config", "oid:i cfgname:t cfgnamespace:i cfgowner:i cfgparser:i"),
    ("pg_user_mapping", "oid:i umuser:i umserver:i umoptions:l"),
    ("pg_views", "schemaname:t viewname:t viewowner:t definition:t"),
];

/// The columns of the table of this name, if it is one without rows.
pub(super) fn find(name: &str) -> Option<&'static str> {
    EMPTY.iter().find(|(known, _)| *known == name).map(|(_, columns)| *columns)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    EMPTY.iter().map(|(name, _)| *name)
}
