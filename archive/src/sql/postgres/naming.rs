//! Columns called as PostgreSQL calls them: `count(*)` is `count`, and what has no name is `?column?`, as often as it comes.
//!
//! Programs ask for columns by these names. The engine wants each name once, so what is there again is marked, and the mark
//! is taken off on the way to the client.

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Statement, Value};

/// Before the number of a name that is there again. It is in no name that is written.
const MARK: char = '\u{1}';

/// Names the columns of a query that have no name.
pub(super) fn name(statement: &mut Statement) {
    let Statement::Query(query) = statement else { return };
    let Query { body, .. } = &mut **query;
    let SetExpr::Select(select) = &mut **body else { return };
    // There the engine must find what is sorted by among the columns, as it is written.
    if select.distinct.is_some() {
        return;
    }
    for (number, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let Some(name) = called(expr) else { continue };
        let alias = Ident::with_quote('"', format!("{name}{MARK}{number}"));
        let expr = std::mem::replace(expr, Expr::Value(Value::Null.into()));
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
}

/// A name as the client is told it.
pub(super) fn shown(name: &str) -> &str {
    name.split_once(MARK).map_or(name, |(name, _)| name)
}

/// What PostgreSQL calls an expression; none for columns, which have their names.
fn called(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. } => None,
        Expr::Nested(inner) => called(inner),
        Expr::Cast { expr, .. } => match &**expr {
            Expr::Identifier(ident) => Some(ident.value.clone()),
            inner => called(inner),
        },
        Expr::Function(function) => {
            let name = function.name.0.last()?.as_ident()?;
            Some(if name.quote_style.is_none() { name.value.to_ascii_lowercase() } else { name.value.clone() })
        }
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        _ => Some("?column?".to_owned()),
    }
}
