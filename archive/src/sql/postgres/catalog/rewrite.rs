//! What clients of PostgreSQL write and the engine does not know, in the engine's words. Pure: a statement in, a statement
//! out, with the same rows.
//!
//! It is no guard. Whatever comes out is planned and judged like any other query.

use std::ops::ControlFlow;

use arrow::datatypes::DataType as ArrowType;
use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins,
    Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::super::parameter::literal as elements;
use super::{SCHEMA, empty, functions, is_known, tables};

/// Rewrites a statement. `types`: what is known of its parameters, in their order.
pub(in crate::sql::postgres) fn rewrite(statement: &mut Statement, types: &[Option<ArrowType>]) {
    // A query may call its own parts as it likes: then a name means that.
    let is_shadowed = Visit::visit(statement, &mut OwnNames).is_break();
    // It never breaks off.
    let _ = VisitMut::visit(statement, &mut Rewriter { types, is_shadowed });
}

/// Says of parameters that stand for a list, as in `= ANY ($1)`, that they are one: of text, where the client does not say
/// what of. The engine would take them for one of its elements.
pub(in crate::sql::postgres) fn lists(statement: &Statement, types: &mut Vec<Option<ArrowType>>, most: usize) {
    struct Lists<'a>(&'a mut Vec<Option<ArrowType>>, usize);
    impl Visitor for Lists<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let (of, element) = match expr {
                Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => (right, ArrowType::Utf8),
                Expr::Cast { expr, data_type: DataType::Array(inner), .. } => (expr, element(inner)),
                _ => return ControlFlow::Continue(()),
            };
            let of = if let Expr::Nested(inner) = &**of { inner } else { of };
            let place = if let Expr::Value(value) = &**of { placeholder(&value.value) } else { None };
            if let Some(at) = place.filter(|at| *at < self.1) {
                if self.0.len() <= at {
                    self.0.resize(at + 1, None);
                }
                self.0[at].get_or_insert_with(|| ArrowType::new_list(element, true));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = Visit::visit(statement, &mut Lists(types, most));
}

/// The engine's type of a list's elements, as far as it matters how their text is read.
fn element(of: &ArrayElemTypeDef) -> ArrowType {
    match of {
        ArrayElemTypeDef::SquareBracket(inner, _) | ArrayElemTypeDef::AngleBracket(inner) => match **inner {
            DataType::SmallInt(_) | DataType::Int(_) | DataType::Integer(_) | DataType::BigInt(_) => ArrowType::Int64,
            DataType::Int2(_) | DataType::Int4(_) | DataType::Int8(_) => ArrowType::Int64,
            _ => ArrowType::Utf8,
        },
        _ => ArrowType::Utf8,
    }
}

/// The place of a parameter, from 0.
fn placeholder(value: &Value) -> Option<usize> {
    let Value::Placeholder(name) = value else { return None };
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// Breaks off at a part of a query that is called like a table of the schema.
struct OwnNames;

impl Visitor for OwnNames {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut parts = query.with.iter().flat_map(|with| &with.cte_tables);
        match parts.any(|part| is_known(&part.alias.name.value.to_ascii_lowercase())) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

struct Rewriter<'a> {
    types: &'a [Option<ArrowType>],
    is_shadowed: bool,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(names) = self.void(query) {
            let columns: Vec<String> =
                names.iter().map(|name| format!("NULL AS {}", Ident::with_quote('"', name))).collect();
            if let Some(without_rows) = parsed_query(&format!("SELECT {} WHERE false", columns.join(", "))) {
                *query = without_rows;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        without_repetition(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
        if let [ObjectNamePart::Identifier(ident)] = name.0.as_slice()
            && !self.is_shadowed
            && is_known(&ident.value.to_ascii_lowercase())
        {
            name.0.insert(0, ObjectNamePart::Identifier(Ident::new(SCHEMA)));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        as_a_table(factor);
        with_types_named(factor);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(query) if self.void(query).is_some() => *expr = null(),
            Expr::Subquery(query) if !self.is_shadowed => of_one_row(query),
            Expr::Exists { subquery, negated } if self.void(subquery).is_some() => {
                *expr = Expr::Value(Value::Boolean(*negated).into());
            }
            Expr::Function(Function { args: FunctionArguments::Subquery(query), .. })
                if self.void(query).is_some() || lists_options(query) =>
            {
                *expr = cast(null(), DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None)));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate { expr: inner, .. } => *expr = std::mem::replace(inner, null()),
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(names) = op
                    && let Some(known) = names.last().and_then(|name| operator(name))
                {
                    *op = known;
                }
            }
            // Text is a list as it is written, not a list of that text.
            Expr::Cast { expr: inner, data_type: DataType::Array(_), .. } => {
                if let Expr::Value(value) = &**inner
                    && let Value::SingleQuotedString(text) = &value.value
                    && let Ok(elements) = elements(text)
                {
                    let element = |text: Option<String>| match text {
                        Some(text) => Expr::Value(Value::SingleQuotedString(text).into()),
                        None => null(),
                    };
                    let elem = elements.into_iter().map(element).collect();
                    **inner = Expr::Array(Array { elem, named: true });
                }
            }
            Expr::Cast { data_type: DataType::Regclass, .. } => custom_cast(expr, "regclass"),
            Expr::Cast { data_type: DataType::Custom(name, _), .. } => {
                let name = last(name);
                custom_cast(expr, &name);
            }
            Expr::Function(function) => {
                if let [ObjectNamePart::Identifier(schema), _] = function.name.0.as_slice()
                    && schema.value.eq_ignore_ascii_case(SCHEMA)
                {
                    function.name.0.remove(0);
                }
                // Arrays begin at 1 here.
                match last(&function.name).as_str() {
                    UPPER => function.name = ObjectName::from(vec![Ident::new("array_length")]),
                    "array_lower" => *expr = number(1),
                    _ => {}
                }
            }
            Expr::Identifier(ident) if ident.quote_style.is_none() && is_word(&ident.value) => {
                if let Some(call) = parsed_expr(&format!("{}()", ident.value)) {
                    *expr = call;
                }
            }
            Expr::Value(value) => {
                if let Some(at) = placeholder(&value.value)
                    && let Some(data_type) = self.types.get(at).and_then(Option::as_ref).and_then(written)
                {
                    let inner = std::mem::replace(expr, null());
                    *expr = cast(inner, data_type);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_> {
    fn void(&self, query: &Query) -> Option<Vec<String>> {
        if self.is_shadowed { None } else { void(&query.body) }
    }
}

/// A type of the engine, as it is written in SQL. Those that have no name there are left to the engine to find.
fn written(data_type: &ArrowType) -> Option<DataType> {
    let name = match data_type {
        ArrowType::Boolean => "BOOLEAN",
        ArrowType::Int16 => "SMALLINT",
        ArrowType::Int32 => "INT",
        ArrowType::Int64 => "BIGINT",
        ArrowType::Float32 => "REAL",
        ArrowType::Float64 => "DOUBLE",
        ArrowType::Utf8 => "VARCHAR",
        ArrowType::Binary => "BYTEA",
        ArrowType::Date32 => "DATE",
        ArrowType::Time64(_) => "TIME",
        ArrowType::Timestamp(_, None) => "TIMESTAMP",
        ArrowType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        ArrowType::Decimal128(..) => "DECIMAL(38, 10)",
        ArrowType::List(element) => {
            let element = written(element.data_type())?;
            return parsed_type(&format!("{element}[]"));
        }
        _ => return None,
    };
    parsed_type(name)
}

fn operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// Casts to types that name things: of a name its number, of a number its name.
fn custom_cast(expr: &mut Expr, to: &str) {
    let Expr::Cast { expr: inner, .. } = expr else { return };
    let literal = match &**inner {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let inner = std::mem::replace(&mut **inner, null());
    let bare = literal.as_deref().map(|text| text.rsplit('.').next().unwrap_or(text).trim_matches('"').to_owned());
    *expr = match (to, bare) {
        ("regclass", Some(name)) => tables::relation_oid(&name).map_or(inner, number),
        ("regtype", Some(name)) => tables::type_oid(&name).map_or(inner, number),
        ("regclass", None) => call(functions::RELATION, vec![inner]),
        ("regtype", None) => call("format_type", vec![inner, null()]),
        ("oid" | "xid" | "cid" | "int4", _) => cast(inner, DataType::Int(None)),
        ("int8", _) => cast(inner, DataType::BigInt(None)),
        ("bool", _) => cast(inner, DataType::Boolean),
        ("regnamespace", Some(name)) if name == "public" => number(2200),
        _ => cast(inner, DataType::Varchar(None)),
    };
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn number(number: i32) -> Expr {
    Expr::Value(Value::Number(number.to_string(), false).into())
}

fn call(name: &str, values: Vec<Expr>) -> Expr {
    let mut expr = parsed_expr(&format!("{name}()")).unwrap_or_else(null);
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut expr {
        list.args = values.into_iter().map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value))).collect();
    }
    expr
}

fn parsed_expr(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_expr().ok()
}

fn parsed_type(text: &str) -> Option<DataType> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_data_type().ok()
}

fn parsed_query(text: &str) -> Option<Query> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_query().ok().map(|query| *query)
}

/// Words that PostgreSQL reads as a function without parentheses.
fn is_word(name: &str) -> bool {
    const WORDS: [&str; 6] =
        ["current_schema", "current_catalog", "current_role", "current_user", "session_user", "user"];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(name))
}

fn last(name: &ObjectName) -> String {
    name.0.last().and_then(ObjectNamePart::as_ident).map(|ident| ident.value.to_ascii_lowercase()).unwrap_or_default()
}

/// `SELECT c.oid, c.*`: the engine wants each column once.
fn without_repetition(projection: &mut Vec<SelectItem>) {
    let of_table = |item: &SelectItem| match item {
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => Some(last(name)),
        _ => None,
    };
    let whole: Vec<String> = projection.iter().filter_map(of_table).collect();
    if whole.is_empty() {
        return;
    }
    projection.retain(|item| match item {
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => match parts.as_slice() {
            [table, _] => !whole.contains(&table.value.to_ascii_lowercase()),
            _ => true,
        },
        _ => true,
    });
}

/// The columns of a query that can have no rows, because it reads a table that never has any; none if it may have some.
fn void(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => {
            let aggregates = select.projection.iter().any(has_aggregate);
            (!aggregates && select.from.iter().any(is_void)).then(|| names(&select.projection)).flatten()
        }
        SetExpr::SetOperation { left, right, .. } => {
            let names = void(left)?;
            void(right).map(|_| names)
        }
        SetExpr::Query(query) => void(&query.body),
        _ => None,
    }
}

fn is_void(table: &TableWithJoins) -> bool {
    let inner = |join: &JoinOperator| {
        matches!(join, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
    };
    let keeps_left =
        |join: &JoinOperator| inner(join) || matches!(join, JoinOperator::Left(_) | JoinOperator::LeftOuter(_));
    let all_keep_left = table.joins.iter().all(|join| keeps_left(&join.join_operator));
    let joins_void = table.joins.iter().any(|join| inner(&join.join_operator) && never_has_rows(&join.relation));
    all_keep_left && (never_has_rows(&table.relation) || joins_void)
}

fn never_has_rows(factor: &TableFactor) -> bool {
    let name = match factor {
        TableFactor::Table { name, args: None, .. } => name,
        TableFactor::Derived { subquery, .. } => return void(&subquery.body).is_some(),
        _ => return false,
    };
    let in_schema = match name.0.as_slice() {
        [_] => true,
        [ObjectNamePart::Identifier(schema), _] => schema.value.eq_ignore_ascii_case(SCHEMA),
        _ => false,
    };
    in_schema && empty::find(&last(name)).is_some()
}

/// What a name is to others: without quotes its case says nothing.
fn known_as(ident: &Ident) -> String {
    if ident.quote_style.is_none() { ident.value.to_ascii_lowercase() } else { ident.value.clone() }
}

/// Names of the columns, each once; none if they are not all written.
fn names(projection: &[SelectItem]) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for item in projection {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => known_as(alias),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => known_as(ident),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => known_as(parts.last()?),
            SelectItem::UnnamedExpr(Expr::Function(function)) => last(&function.name),
            SelectItem::UnnamedExpr(_) => "?column?".to_owned(),
            _ => return None,
        };
        let repeated = names.iter().filter(|known| known.starts_with(&name)).count();
        names.push(if repeated == 0 { name } else { format!("{name}_{repeated}") });
    }
    Some(names)
}

/// `(SELECT relname FROM pg_class c WHERE c.oid = t.typrelid)` finds one row at most, because it asks by number. The engine
/// takes that only if it is said.
fn of_one_row(query: &mut Query) {
    let SetExpr::Select(select) = &mut *query.body else { return };
    let is_of_schema = |table: &TableWithJoins| {
        let mut factors = std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation));
        factors.all(|factor| {
            matches!(factor, TableFactor::Table { name, args: None, .. }
                if is_known(&last(name)) && !matches!(last(name).as_str(), "pg_tables" | "pg_settings"))
        })
    };
    if select.from.is_empty() || !select.from.iter().all(is_of_schema) || query.limit_clause.is_some() {
        return;
    }
    if let [item @ SelectItem::UnnamedExpr(_)] = select.projection.as_mut_slice()
        && !has_aggregate(item)
        && let SelectItem::UnnamedExpr(expr) = item
    {
        let inner = std::mem::replace(expr, null());
        *expr = call("max", vec![inner]);
    }
}

/// `ARRAY(SELECT ... FROM pg_catalog.unnest(...))`: how psql spreads options and rights, of which there are none.
fn lists_options(query: &Query) -> bool {
    let SetExpr::Select(select) = &*query.body else { return false };
    let spreads = |table: &TableWithJoins| {
        let TableFactor::Table { name, args: Some(_), .. } = &table.relation else { return false };
        name.0.len() == 2 && last(name) == "unnest"
    };
    !select.from.is_empty() && select.from.iter().all(spreads)
}

/// PostgreSQL's function for the last place in an array.
const UPPER: &str = "array_upper";

/// Functions in the place of a table that the engine has in other places only, as clients go through the search path:
/// `FROM generate_series(1, array_upper(a, 1)) i, string_to_array('...', ',') s`. As a table the engine counts between
/// numbers that are written only; what an array has places for is few, and may be made at once.
fn as_a_table(factor: &mut TableFactor) {
    let TableFactor::Table { name, args: Some(arguments), alias, .. } = factor else { return };
    let text = match (last(name).as_str(), arguments.args.as_slice()) {
        ("generate_series", [first, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(upper)))])
            if last(&upper.name) == UPPER =>
        {
            format!("SELECT unnest(generate_series({first}, {upper}))")
        }
        ("string_to_array", [text, between]) => format!("SELECT string_to_array({text}, {between})"),
        _ => return,
    };
    let mut alias = alias.take();
    // The column is called like the table.
    if let Some(alias) = alias.as_mut().filter(|alias| alias.columns.is_empty()) {
        alias.columns.push(TableAliasColumnDef::from_name(alias.name.value.clone()));
    }
    if let Some(subquery) = parsed_query(&text) {
        *factor = TableFactor::Derived { lateral: false, subquery: Box::new(subquery), alias, sample: None };
    }
}

/// The engine calls types by names of its own in `information_schema.columns`; clients look for PostgreSQL's.
fn with_types_named(factor: &mut TableFactor) {
    let TableFactor::Table { name, args: None, alias, .. } = factor else { return };
    if let [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(table)] = name.0.as_slice()
        && schema.value.eq_ignore_ascii_case("information_schema")
        && table.value.eq_ignore_ascii_case("columns")
    {
        let called = TableAlias { explicit: true, name: table.clone(), columns: Vec::new(), at: None };
        alias.get_or_insert(called);
        *name = ObjectName::from(vec![Ident::new(SCHEMA), Ident::new(tables::COLUMNS)]);
    }
}

/// Whether one row comes out of no rows.
fn has_aggregate(item: &SelectItem) -> bool {
    /// How deep in subqueries, whose aggregates are their own.
    struct Aggregates(u32);
    impl Visitor for Aggregates {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            const AGGREGATES: [&str; 10] =
                ["count", "sum", "min", "max", "avg", "bool_and", "bool_or", "array_agg", "string_agg", "json_agg"];
            match expr {
                Expr::Function(function) if self.0 == 0 && AGGREGATES.contains(&last(&function.name).as_str()) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(item, &mut Aggregates(0)).is_break()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, text).unwrap();
        rewrite(&mut statements[0], &[None, Some(ArrowType::Int64)]);
        statements[0].to_string()
    }

    #[test]
    fn what_clients_write_is_put_in_the_engines_words() {
        for (text, expected) in [
            ("SELECT relname FROM pg_class", "SELECT relname FROM pg_catalog.pg_class"),
            (
                "SELECT pg_catalog.format_type(a, b) WHERE x OPERATOR(pg_catalog.~) '^(e)$' COLLATE pg_catalog.default",
                "SELECT format_type(a, b) WHERE x ~ '^(e)$'",
            ),
            ("SELECT 'pg_class'::regclass::oid", "SELECT CAST(1259 AS INT)"),
            ("SELECT x::pg_catalog.regtype::pg_catalog.text", "SELECT CAST(format_type(x, NULL) AS VARCHAR)"),
            ("SELECT current_schema, \"user\"", "SELECT current_schema(), \"user\""),
            ("SELECT $1, $2", "SELECT $1, CAST($2 AS BIGINT)"),
            ("SELECT c.oid, c.*, d.x FROM c, d", "SELECT c.*, d.x FROM c, d"),
            ("SELECT inhrelid::regclass FROM pg_inherits i, pg_class c", "SELECT NULL AS \"?column?\" WHERE false"),
            ("SELECT 1 FROM t LEFT JOIN pg_index i ON true", "SELECT 1 FROM t LEFT JOIN pg_catalog.pg_index i ON true"),
            (
                "SELECT r.KEYS, r.\"A\" FROM pg_class c JOIN (SELECT f(i.indkey) AS keys FROM pg_index i) r ON (r.keys).n = 1",
                "SELECT NULL AS \"keys\", NULL AS \"A\" WHERE false",
            ),
            (
                "SELECT s[i] FROM generate_series(array_lower(a, 1), array_upper(a, 1)) AS i, string_to_array('a,b', ',') s",
                "SELECT s[i] FROM (SELECT unnest(generate_series(1, array_length(a, 1)))) AS i (i), \
                 (SELECT string_to_array('a,b', ',')) s (s)",
            ),
            (
                "SELECT columns.data_type FROM information_schema.columns",
                "SELECT columns.data_type FROM pg_catalog.information_schema_columns AS columns",
            ),
            (
                "SELECT s.r FROM generate_series(1, array_upper(current_schemas(false), 1)) AS s(r), generate_series(1, 9) t",
                "SELECT s.r FROM (SELECT unnest(generate_series(1, array_length(current_schemas(false), 1)))) AS s (r), \
                 generate_series(1, 9) t",
            ),
            ("SELECT count(*) FROM pg_index", "SELECT count(*) FROM pg_catalog.pg_index"),
            ("SELECT (SELECT adbin FROM pg_attrdef d WHERE d.adrelid = a.oid) FROM a", "SELECT NULL FROM a"),
            (
                "SELECT (SELECT relname FROM pg_class c WHERE c.oid = t.x) FROM t",
                "SELECT (SELECT max(relname) FROM pg_catalog.pg_class c WHERE c.oid = t.x) FROM t",
            ),
            ("SELECT a || array(SELECT 'x' || x FROM pg_catalog.unnest(b) x)", "SELECT a || CAST(NULL AS TEXT[])"),
            ("SELECT '{a,\"b c\",NULL}'::text[]", "SELECT ARRAY['a', 'b c', NULL]::TEXT[]"),
            ("SELECT EXISTS(SELECT 1 FROM pg_policy)", "SELECT false"),
            (
                "WITH pg_index AS (SELECT 1 AS a) SELECT a FROM pg_index",
                "WITH pg_index AS (SELECT 1 AS a) SELECT a FROM pg_index",
            ),
            ("SELECT a FROM events WHERE b = 'pg_index'", "SELECT a FROM events WHERE b = 'pg_index'"),
        ] {
            assert_eq!(rewritten(text), expected, "{text}");
        }
    }
}
