//! Tables of `pg_catalog` that have rows, made of the archive's list of tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use super::super::Session;
use super::super::types::{KINDS, parameter_oid};
use super::{DATABASE, OWNER};
use crate::table::{Column, TABLES, Table};

/// Number of the schema `public`, as in PostgreSQL; and of the owner of everything.
const PUBLIC: i32 = 2200;
const OWNER_OID: i32 = 10;

/// Number of the first table: where PostgreSQL's own end.
const FIRST: i32 = 16_384;

/// Number of `pg_class` itself, by which descriptions say what they describe.
const CLASS: i32 = 1259;

/// A table and how its rows are made.
pub(super) struct Relation {
    pub name: &'static str,
    columns: &'static str,
    rows: fn(&Session) -> Vec<Row>,
}

type Row = Vec<Cell>;

pub(super) enum Cell {
    Null,
    Int(i32),
    Bool(bool),
    Text(String),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<i32> for Cell {
    fn from(number: i32) -> Cell {
        Cell::Int(number)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$(Cell::from($value)),*] };
}

/// What is asked for as `information_schema.columns`.
pub(super) const COLUMNS: &str = "information_schema_columns";

pub(super) const RELATIONS: &[Relation] = &[
    Relation {
        name: COLUMNS,
        columns: "table_catalog:t table_schema:t table_name:t column_name:t ordinal_position:i column_default:t \
                  is_nullable:t data_type:t udt_catalog:t udt_schema:t udt_name:t character_maximum_length:i \
                  numeric_precision:i numeric_scale:i datetime_precision:i is_identity:t is_generated:t is_updatable:t",
        rows: |_| columns(),
    },
    Relation {
        name: "pg_am",
        columns: "oid:i amname:t amhandler:t amtype:t",
        rows: |_| vec![row![2, "heap", "-", "t"]],
    },
    Relation {
        name: "pg_attribute",
        columns: "attrelid:i attname:t atttypid:i attlen:i attnum:i atttypmod:i attnotnull:b atthasdef:b attisdropped:b \
                  attislocal:b attidentity:t attgenerated:t attcollation:i attndims:i attstattarget:i attinhcount:i \
                  attstorage:t attcompression:t atthasmissing:b attacl:l attoptions:l attfdwoptions:l",
        rows: |_| attributes(),
    },
    Relation {
        name: "pg_class",
        columns: "oid:i relname:t relnamespace:i reltype:i reloftype:i relowner:i relam:i relfilenode:i reltablespace:i \
                  relpages:i reltuples:i relallvisible:i reltoastrelid:i relhasindex:b relisshared:b relpersistence:t \
                  relkind:t relnatts:i relchecks:i relhasrules:b relhastriggers:b relhassubclass:b relrowsecurity:b \
                  relforcerowsecurity:b relispopulated:b relreplident:t relispartition:b relhasoids:b relacl:l \
                  reloptions:l relpartbound:t",
        rows: |_| numbered().map(|(oid, table)| class(oid, table)).collect(),
    },
    Relation {
        name: "pg_database",
        columns: "oid:i datname:t datdba:i encoding:i datlocprovider:t datistemplate:b datallowconn:b datconnlimit:i \
                  dattablespace:i datcollate:t datctype:t daticulocale:t datcollversion:t datacl:l",
        rows: |_| {
            vec![row![
                FIRST - 1,
                DATABASE,
                OWNER_OID,
                6,
                "c",
                false,
                true,
                -1,
                1663,
                "C.UTF-8",
                "C.UTF-8",
                Cell::Null,
                Cell::Null,
                Cell::Null
            ]]
        },
    },
    Relation {
        name: "pg_description",
        columns: "objoid:i classoid:i objsubid:i description:t",
        rows: |_| descriptions(),
    },
    Relation {
        name: "pg_namespace",
        columns: "oid:i nspname:t nspowner:i nspacl:l",
        rows: |_| {
            let schemas = [(11, "pg_catalog"), (PUBLIC, "public"), (FIRST - 2, "information_schema")];
            schemas.map(|(oid, name)| row![oid, name, OWNER_OID, Cell::Null]).into()
        },
    },
    Relation {
        name: "pg_roles",
        columns: "oid:i rolname:t rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b rolreplication:b \
                  rolconnlimit:i rolvaliduntil:t rolbypassrls:b rolconfig:l",
        rows: |session| {
            let role = |oid: i32, name: &str| {
                row![oid, name, false, true, false, false, true, false, -1, Cell::Null, false, Cell::Null]
            };
            // Who else there is is nobody's business.
            let own = (session.user != OWNER).then(|| role(OWNER_OID + 1, &session.user));
            [role(OWNER_OID, OWNER)].into_iter().chain(own).collect()
        },
    },
    Relation {
        name: "pg_settings",
        columns: "name:t setting:t unit:t category:t short_desc:t context:t vartype:t source:t min_val:t max_val:t \
                  enumvals:l boot_val:t reset_val:t pending_restart:b",
        rows: |session| {
            let setting = |(name, value): (&str, &str)| {
                row![
                    name,
                    value,
                    Cell::Null,
                    "harrier",
                    "",
                    "user",
                    "string",
                    "default",
                    Cell::Null,
                    Cell::Null,
                    Cell::Null,
                    Cell::Null,
                    Cell::Null,
                    false
                ]
            };
            session.variables.all().map(setting).collect()
        },
    },
    Relation {
        name: "pg_tables",
        columns: "schemaname:t tablename:t tableowner:t tablespace:t hasindexes:b hasrules:b hastriggers:b rowsecurity:b",
        rows: |_| {
            let table = |table: &&Table| row!["public", table.name, OWNER, Cell::Null, false, false, false, false];
            TABLES.iter().map(table).collect()
        },
    },
    Relation {
        name: "pg_tablespace",
        columns: "oid:i spcname:t spcowner:i spcacl:l spcoptions:l",
        rows: |_| vec![row![1663, "pg_default", OWNER_OID, Cell::Null, Cell::Null]],
    },
    Relation {
        name: "pg_type",
        columns: "oid:i typname:t typnamespace:i typowner:i typlen:i typbyval:b typtype:t typcategory:t typispreferred:b \
                  typisdefined:b typdelim:t typrelid:i typelem:i typarray:i typnotnull:b typbasetype:i typtypmod:i \
                  typndims:i typcollation:i typdefault:t typinput:t typacl:l",
        rows: |_| types(),
    },
];

/// The archive's tables with their numbers.
pub(super) fn numbered() -> impl Iterator<Item = (i32, &'static Table)> {
    (FIRST..).zip(TABLES.iter().copied())
}

fn class(oid: i32, table: &Table) -> Row {
    let columns = i32::try_from(table.columns().len()).unwrap_or_default();
    row![
        oid,
        table.name,
        PUBLIC,
        0,
        0,
        OWNER_OID,
        2,
        0,
        0,
        0,
        -1,
        0,
        0,
        false,
        false,
        "p",
        "r",
        columns,
        0,
        false,
        false,
        false,
        false,
        false,
        true,
        "n",
        false,
        false,
        Cell::Null,
        Cell::Null,
        Cell::Null
    ]
}

fn attributes() -> Vec<Row> {
    let mut rows = Vec::new();
    for (oid, table) in numbered() {
        for (number, column) in (1..).zip(table.columns()) {
            let type_oid = type_of(&column);
            let length =
                KINDS.iter().find(|(_, known, ..)| *known as i32 == type_oid).map_or(-1, |kind| i32::from(kind.3));
            rows.push(row![
                oid,
                column.name,
                type_oid,
                length,
                number,
                -1,
                false,
                false,
                false,
                true,
                "",
                "",
                0,
                0,
                -1,
                0,
                "x",
                "",
                false,
                Cell::Null,
                Cell::Null,
                Cell::Null
            ]);
        }
    }
    rows
}

fn columns() -> Vec<Row> {
    let mut rows = Vec::new();
    for (_, table) in numbered() {
        for (number, column) in (1..).zip(table.columns()) {
            let oid = type_of(&column);
            let names = KINDS
                .iter()
                .flat_map(|(_, one, list, _, name)| [(*one, (*name).to_owned()), (*list, format!("_{name}"))]);
            let udt = names
                .into_iter()
                .find(|(known, _)| *known as i32 == oid)
                .map_or(Cell::Null, |(_, name)| Cell::Text(name));
            let written = type_name(oid);
            let written = if written.ends_with("[]") { "ARRAY".to_owned() } else { written };
            rows.push(row![
                DATABASE,
                "public",
                table.name,
                column.name,
                number,
                Cell::Null,
                "YES",
                written.as_str(),
                DATABASE,
                "pg_catalog",
                udt,
                Cell::Null,
                Cell::Null,
                Cell::Null,
                Cell::Null,
                "NO",
                "NEVER",
                "NO"
            ]);
        }
    }
    rows
}

fn type_of(column: &Column) -> i32 {
    parameter_oid(&column.kind.data_type()) as i32
}

fn descriptions() -> Vec<Row> {
    let mut rows = Vec::new();
    for (oid, table) in numbered() {
        rows.push(row![oid, CLASS, 0, table.doc]);
        rows.extend((1..).zip(table.columns()).map(|(number, column)| row![oid, CLASS, number, column.doc]));
    }
    rows
}

/// Types that clients ask for and no column of ours has: number, that of the list, size, name.
const OTHER_TYPES: [(u32, u32, i16, &str); 7] = [
    (18, 1002, 1, "char"),
    (19, 1003, 64, "name"),
    (26, 1028, 4, "oid"),
    (114, 199, -1, "json"),
    (1042, 1014, -1, "bpchar"),
    (1043, 1015, -1, "varchar"),
    (2950, 2951, 16, "uuid"),
];

fn types() -> Vec<Row> {
    let mut rows = Vec::new();
    let kinds = KINDS.iter().map(|(_, oid, list, size, name)| (*oid, *list, *size, *name));
    for (oid, list, size, name) in kinds.chain(OTHER_TYPES) {
        let category = match name {
            "bool" => "B",
            "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "oid" => "N",
            "date" | "time" | "timestamp" | "timestamptz" => "D",
            "interval" => "T",
            "bytea" | "json" | "uuid" => "U",
            _ => "S",
        };
        let (oid, list) = (oid as i32, list as i32);
        let mut push = |oid: i32, name: String, size: i32, category: &str, element: i32, list: i32| {
            let name = name.as_str();
            rows.push(row![
                oid,
                name,
                11,
                OWNER_OID,
                size,
                size > 0,
                "b",
                category,
                false,
                true,
                ",",
                0,
                element,
                list,
                false,
                0,
                -1,
                0,
                0,
                Cell::Null,
                if element == 0 { name } else { "array_in" },
                Cell::Null
            ]);
        };
        push(oid, name.to_owned(), i32::from(size), category, 0, list);
        push(list, format!("_{name}"), -1, "A", oid, 0);
    }
    rows
}

/// The name of a type, as people write it.
pub(super) fn type_name(oid: i32) -> String {
    const WRITTEN: [(&str, &str); 11] = [
        ("bool", "boolean"),
        ("int2", "smallint"),
        ("int4", "integer"),
        ("int8", "bigint"),
        ("float4", "real"),
        ("float8", "double precision"),
        ("time", "time without time zone"),
        ("timestamp", "timestamp without time zone"),
        ("timestamptz", "timestamp with time zone"),
        ("varchar", "character varying"),
        ("bpchar", "character"),
    ];
    let kinds = KINDS.iter().map(|(_, oid, list, _, name)| (*oid as i32, *list as i32, *name));
    let others = OTHER_TYPES.iter().map(|(oid, list, _, name)| (*oid as i32, *list as i32, *name));
    for (one, list, name) in kinds.chain(others) {
        let written = WRITTEN.iter().find(|(known, _)| *known == name).map_or(name, |(_, written)| written);
        if one == oid {
            return written.to_owned();
        }
        if list == oid {
            return format!("{written}[]");
        }
    }
    "???".to_owned()
}

/// The number of a type of this name.
pub(super) fn type_oid(name: &str) -> Option<i32> {
    let kinds = KINDS.iter().map(|(_, oid, _, _, name)| (*oid as i32, *name));
    let mut all = kinds.chain(OTHER_TYPES.iter().map(|(oid, _, _, name)| (*oid as i32, *name)));
    all.find(|(oid, known)| *known == name || type_name(*oid) == name).map(|(oid, _)| oid)
}

/// The number of a table of this name: of the archive, or the one that describes tables.
pub(super) fn relation_oid(name: &str) -> Option<i32> {
    let own =
        [("pg_class", CLASS), ("pg_type", 1247), ("pg_namespace", 2615), ("pg_proc", 1255), ("pg_database", 1262)];
    let own = own.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid);
    own.or_else(|| numbered().find(|(_, table)| table.name == name).map(|(oid, _)| oid))
}

/// Columns written as `name:type`, where a type is a letter: whole number, truth, list of text, text.
pub(super) fn fields(columns: &str) -> Vec<Field> {
    let field = |column: &str| {
        let (name, kind) = column.split_once(':').unwrap_or((column, "t"));
        let data_type = match kind {
            "i" => DataType::Int32,
            "b" => DataType::Boolean,
            "l" => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            _ => DataType::Utf8,
        };
        Field::new(name, data_type, true)
    };
    columns.split_whitespace().map(field).collect()
}

impl Relation {
    pub(super) fn batch(&self, session: &Session) -> Result<RecordBatch, ArrowError> {
        let (fields, rows) = (fields(self.columns), (self.rows)(session));
        let column = |(at, field): (usize, &Field)| -> ArrayRef {
            let cells = rows.iter().map(|row| row.get(at));
            match field.data_type() {
                DataType::Int32 => Arc::new(
                    cells
                        .map(|cell| if let Some(Cell::Int(value)) = cell { Some(*value) } else { None })
                        .collect::<Int32Array>(),
                ),
                DataType::Boolean => Arc::new(
                    cells
                        .map(|cell| if let Some(Cell::Bool(value)) = cell { Some(*value) } else { None })
                        .collect::<BooleanArray>(),
                ),
                DataType::Utf8 => Arc::new(
                    cells
                        .map(|cell| if let Some(Cell::Text(value)) = cell { Some(value.as_str()) } else { None })
                        .collect::<StringArray>(),
                ),
                list => new_null_array(list, rows.len()),
            }
        };
        let arrays = fields.iter().enumerate().map(column).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_value_for_every_column() {
        let session = Session::default();
        for relation in RELATIONS {
            let fields = fields(relation.columns);
            for row in (relation.rows)(&session) {
                assert_eq!(row.len(), fields.len(), "{}", relation.name);
                for (cell, field) in row.iter().zip(&fields) {
                    let fits = match cell {
                        Cell::Null => true,
                        Cell::Int(_) => *field.data_type() == DataType::Int32,
                        Cell::Bool(_) => *field.data_type() == DataType::Boolean,
                        Cell::Text(_) => *field.data_type() == DataType::Utf8,
                    };
                    assert!(fits, "{}.{}", relation.name, field.name());
                }
            }
            assert!(relation.batch(&session).unwrap().num_rows() > 0, "{}", relation.name);
        }
    }
}
