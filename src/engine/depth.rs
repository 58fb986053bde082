//! Bounds the depth of SQL.
//!
//! Parsers, planners and evaluation call themselves for each level, and a thread whose stack is used up ends
//! the process. SQL is therefore parsed on a thread with a stack that its text cannot use up, and is refused if
//! it has more than [`DEPTH`] levels. Before that, a long chain of AND or OR, which the parser nests to the
//! left, is turned into a tree with few levels.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Query, Select, SetExpr, TableFactor, Value, VisitMut, VisitorMut,
};

/// The most levels of one expression, or of queries inside each other.
const DEPTH: usize = 400;

/// The most tables and SELECTs of one statement. Each of them makes the plan one level deeper.
const PARTS: usize = 500;

/// A chain of AND or OR with more terms becomes a tree.
const CHAIN: usize = 64;

/// The most bytes of an SQL text.
const TEXT: usize = 1 << 20;

/// The address space of the stack. A text of [`TEXT`] bytes has at most half as many levels, of some hundred
/// bytes each.
const STACK: usize = 512 << 20;

/// The error of SQL that is too long or nests too deeply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TooDeep {
    #[error("the SQL has {0} bytes, and {TEXT} is the limit; keep long lists in a reference table")]
    Long(usize),
    #[error(
        "an expression nests more than {DEPTH} levels deep; write a list as `x IN (…)`, or move parts of the \
         expression into WITH queries"
    )]
    Deep,
    #[error(
        "there are more than {PARTS} tables and SELECTs in one statement; make marts of some of them"
    )]
    Many,
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Calls a function on a thread whose stack is large enough for SQL of this length.
pub(crate) fn on_large_stack<T: Send>(
    text: &str,
    work: impl FnOnce() -> T + Send,
) -> Result<T, TooDeep> {
    if text.len() > TEXT {
        return Err(TooDeep::Long(text.len()));
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(TooDeep::Thread)?;
        thread
            .join()
            .map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// Turns long chains into trees, and refuses SQL that is still too deep.
pub(crate) fn level(sql: &mut impl VisitMut) -> Result<(), TooDeep> {
    let mut level = Level { depth: 0, parts: 0 };
    match sql.visit(&mut level) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Level {
    depth: usize,
    parts: usize,
}

type Passed = ControlFlow<TooDeep>;

impl Level {
    fn down(&mut self) -> Passed {
        self.depth += 1;
        match self.depth > DEPTH {
            true => ControlFlow::Break(TooDeep::Deep),
            false => ControlFlow::Continue(()),
        }
    }

    fn up(&mut self) -> Passed {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn part(&mut self) -> Passed {
        self.parts += 1;
        match self.parts > PARTS {
            true => ControlFlow::Break(TooDeep::Many),
            false => ControlFlow::Continue(()),
        }
    }
}

impl VisitorMut for Level {
    type Break = TooDeep;

    fn pre_visit_query(&mut self, query: &mut Query) -> Passed {
        // The operations are counted before the visitor goes down into them.
        let mut body = query.body.as_ref();
        let mut operations = 0;
        while let SetExpr::SetOperation { left, .. } = body {
            operations += 1;
            body = left;
        }
        match operations > PARTS {
            true => ControlFlow::Break(TooDeep::Many),
            false => self.down(),
        }
    }

    fn post_visit_query(&mut self, _: &mut Query) -> Passed {
        self.up()
    }

    fn pre_visit_select(&mut self, _: &mut Select) -> Passed {
        self.part()
    }

    fn pre_visit_table_factor(&mut self, _: &mut TableFactor) -> Passed {
        self.part()
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Passed {
        spread(expr);
        self.down()
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> Passed {
        self.up()
    }
}

/// Turns a long chain of AND or OR into a tree.
fn spread(expr: &mut Expr) {
    let Expr::BinaryOp { op: chain, .. } = expr else {
        return;
    };
    if !matches!(chain, BinaryOperator::And | BinaryOperator::Or) {
        return;
    }
    let chain = chain.clone();
    let mut length = 1;
    let mut at = &*expr;
    while let Expr::BinaryOp { left, op, .. } = at
        && *op == chain
    {
        length += 1;
        at = left;
    }
    if length <= CHAIN {
        return;
    }
    let mut terms = Vec::with_capacity(length);
    let mut rest = std::mem::replace(expr, Expr::value(Value::Null));
    while let Expr::BinaryOp { left, op, right } = rest {
        if op != chain {
            rest = Expr::BinaryOp { left, op, right };
            break;
        }
        terms.push(*right);
        rest = *left;
    }
    terms.push(rest);
    terms.reverse();
    // Neighbours are joined until one term is left.
    while terms.len() > 1 {
        let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
        let mut pairs = terms.into_iter();
        while let Some(left) = pairs.next() {
            joined.push(match pairs.next() {
                None => left,
                Some(right) => Expr::BinaryOp {
                    left: Box::new(left),
                    op: chain.clone(),
                    right: Box::new(right),
                },
            });
        }
        terms = joined;
    }
    if let Some(tree) = terms.pop() {
        *expr = tree;
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParserBuilder;

    use super::*;

    fn levelled(text: &str) -> Result<String, TooDeep> {
        on_large_stack(text, || {
            let parser = DFParserBuilder::new(text).build();
            let mut parsed = parser.unwrap().parse_into_expr().unwrap();
            level(&mut parsed.expr).map(|()| parsed.expr.to_string())
        })?
    }

    #[test]
    fn a_long_chain_keeps_its_terms_in_their_order() {
        let terms: Vec<String> = (0..5_000).map(|n| format!("a = {n}")).collect();
        let text = terms.join(" OR ");
        // Written without parentheses, the tree is the same text as the chain.
        assert_eq!(levelled(&text).unwrap(), text);
        let short = "a AND b OR c AND NOT (d OR e)";
        assert_eq!(levelled(short).unwrap(), short);
    }

    #[test]
    fn depth_is_refused_and_not_a_crash() {
        let sums = vec!["a"; 200_000].join(" + ");
        assert!(matches!(levelled(&sums), Err(TooDeep::Deep)));
        assert!(levelled(&vec!["a"; 300].join(" + ")).is_ok());
        assert!(matches!(
            levelled(&format!("a = '{}'", "x".repeat(TEXT))),
            Err(TooDeep::Long(_))
        ));
    }
}
