//! Notes about a SELECT that passes the check of its clauses. Other parts of the room explain later errors with them.

/// The notes on one SELECT.
#[derive(Default)]
pub(in crate::mart) struct Notes {
    /// Names after FROM and JOIN as the planner folds them, with their lines.
    pub relations: Vec<(String, Option<usize>)>,
    /// Calls with a clause that only aggregates and windows have.
    pub calls: Vec<Call>,
    /// Lists and sub-queries after FROM that may read the tables beside them.
    pub beside: Vec<Beside>,
    /// The places where the column `dt` is calculated with or given to a function.
    pub dates: Vec<DateUse>,
    /// Recursive queries, by their SELECT that may read the query itself.
    pub recursions: Vec<Recursion>,
    /// Constructs that Athena and DuckDB answer differently.
    pub differing: Vec<Differing>,
    /// Names after AS in all SELECTs, as the planner folds them.
    pub aliases: Vec<String>,
}

/// An item of FROM that reads columns of a table beside it.
pub(in crate::mart) struct Beside {
    /// `UNNEST(e.params)`, or LATERAL.
    pub text: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// How to write the same so that it can be carried out.
    pub instead: String,
}

/// A construct on the closed list of `differs`.
pub(in crate::mart) struct Differing {
    /// The construct, as the list names it.
    pub what: &'static str,
    /// The line, from 1.
    pub line: Option<usize>,
}

/// The column `dt` as an operand.
pub(in crate::mart) struct DateUse {
    /// The function; `None` stands for an operator.
    pub function: Option<String>,
    /// The SQL text.
    pub text: String,
    /// The line, from 1.
    pub line: Option<usize>,
}

/// The second SELECT of a recursive query, which may read the query itself.
pub(in crate::mart) struct Recursion {
    /// The name of the query.
    pub name: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// For each column of the second SELECT, whether it is written as a CAST.
    pub casts: Vec<bool>,
}

/// A function call with a clause that has a meaning for aggregates and windows only.
pub(in crate::mart) struct Call {
    /// The name of the function.
    pub function: String,
    /// The clause.
    pub clause: &'static str,
    /// The line, from 1.
    pub line: Option<usize>,
}
