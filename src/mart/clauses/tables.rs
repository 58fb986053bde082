//! Items of FROM and WITH in a mart's SELECT: tables, joins, aliases.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Join, JoinConstraint, JoinOperator, ObjectName, SelectItem, SetExpr, SetOperator,
    TableAlias, TableAliasColumnDef, TableFactor, TableSampleKind, TableSampleModifier,
    TableVersion, TableWithJoins, With, visit_expressions,
};

use super::notes::{Beside, Recursion};
use super::{Clauses, PASSED, Passed, at, column, folded, leftmost, line_of};

/// The hint about an item of FROM that is no table.
const ONLY_TABLES: &str = "a mart reads tables of the lake, references and other marts only";

impl Clauses<'_> {
    /// Checks the queries of WITH, and notes those that may read themselves.
    pub(super) fn with(&mut self, with: &With) -> Passed {
        let With {
            with_token: _,
            recursive,
            cte_tables,
        } = with;
        for (i, cte) in cte_tables.iter().enumerate() {
            let name = folded(&cte.alias.name);
            let before = cte_tables.iter().take(i);
            if before
                .map(|cte| folded(&cte.alias.name))
                .any(|other| other == name)
            {
                return self.fail(
                    at(&cte.alias.name),
                    &format!("two queries of WITH have the name `{name}`"),
                    "give one of them another name",
                );
            }
            let Cte {
                alias,
                query,
                from,
                materialized,
                closing_paren_token: _,
            } = cte;
            let line = at(&alias.name);
            self.counted(alias, &query.body)?;
            if !self.has_as(&alias.name) {
                return self.fail(
                    line,
                    &format!("the query `{}` has no AS", alias.name),
                    &format!("write `WITH {} AS (…)`", alias.name),
                );
            }
            self.without(
                line,
                &[
                    (from.is_some(), "FROM behind a WITH query"),
                    (materialized.is_some(), "MATERIALIZED"),
                ],
            )?;
            self.alias(Some(alias))?;
            // The planner takes the two sides of a UNION that may read itself, and nothing else of the query.
            let union = matches!(
                &*query.body,
                SetExpr::SetOperation {
                    op: SetOperator::Union,
                    ..
                }
            );
            if *recursive
                && union
                && (query.with.is_some()
                    || query.order_by.is_some()
                    || query.limit_clause.is_some())
            {
                return self.fail(
                    line,
                    &format!(
                        "WITH, ORDER BY and LIMIT are not possible in the recursive query `{}`",
                        alias.name
                    ),
                    "put them into the SELECT that reads it",
                );
            }
            if *recursive && let SetExpr::SetOperation { right, .. } = &*query.body {
                let select = leftmost(right);
                let items = select.map_or(&[][..], |select| select.projection.as_slice());
                self.notes.recursions.push(Recursion {
                    name: folded(&alias.name),
                    line: select.and_then(|select| line_of(select)).or(line),
                    casts: items.iter().map(is_cast).collect(),
                });
            }
        }
        PASSED
    }

    /// Checks the alias of a table.
    pub(super) fn alias(&self, alias: Option<&TableAlias>) -> Passed {
        let Some(alias) = alias else {
            return PASSED;
        };
        let TableAlias {
            explicit: _,
            name,
            columns,
            at: index,
        } = alias;
        let line = at(name);
        self.name(name, self.line(None, "FROM"))?;
        self.without(line, &[(index.is_some(), "AT")])?;
        for column in columns {
            let TableAliasColumnDef { name, data_type } = column;
            if data_type.is_some() {
                return self.fail(
                    at(name),
                    &format!("a type for `{name}` is not possible in an alias"),
                    "write a CAST in the SELECT",
                );
            }
        }
        PASSED
    }

    /// Refuses an alias that names more or fewer columns than its query has. The columns of a `*` are not known here.
    fn counted(&self, alias: &TableAlias, body: &SetExpr) -> Passed {
        let columns = match body {
            SetExpr::Values(values) => values.rows.first().map(|row| row.len()),
            other => leftmost(other).and_then(|select| {
                let is_one = |item: &SelectItem| {
                    matches!(
                        item,
                        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
                    )
                };
                let all = select.projection.iter().all(is_one);
                all.then_some(select.projection.len())
            }),
        };
        let named = alias.columns.len();
        match columns {
            Some(columns) if named > 0 && named != columns => self.fail(
                at(&alias.name),
                &format!(
                    "`{}` has {columns} columns, and its alias names {named}",
                    alias.name
                ),
                "write one name for each column",
            ),
            _ => PASSED,
        }
    }

    /// Refuses two tables of one name in one FROM.
    pub(super) fn twice(&self, from: &[TableWithJoins]) -> Passed {
        let tables = from.iter().flat_map(|from| {
            let joined = from.joins.iter().map(|join| &join.relation);
            std::iter::once(&from.relation).chain(joined)
        });
        let mut seen = Vec::new();
        for table in tables {
            let name = match table {
                TableFactor::Table { name, alias, .. } => {
                    let own = name.0.last().and_then(|part| part.as_ident());
                    alias.as_ref().map(|alias| &alias.name).or(own)
                }
                TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => {
                    alias.as_ref().map(|alias| &alias.name)
                }
                _ => None,
            };
            let Some(name) = name.map(folded) else {
                continue;
            };
            if seen.contains(&name) {
                return self.fail(
                    line_of(table),
                    &format!("two tables of this FROM have the name `{name}`"),
                    "give one of them another name with AS",
                );
            }
            seen.push(name);
        }
        PASSED
    }

    /// Checks the joins behind one item of FROM.
    pub(super) fn joins(&self, from: &TableWithJoins) -> Passed {
        use JoinOperator as J;
        let TableWithJoins { relation: _, joins } = from;
        for join in joins {
            let Join {
                relation,
                global,
                join_operator,
            } = join;
            let line = line_of(relation);
            self.without(line, &[(*global, "GLOBAL")])?;
            let written = || join.to_string().trim().to_owned();
            let instead = match join_operator {
                J::CrossJoin(JoinConstraint::None) => continue,
                J::CrossJoin(_) => "a CROSS JOIN has no condition: write JOIN",
                J::Join(JoinConstraint::None)
                | J::Inner(JoinConstraint::None)
                | J::Left(JoinConstraint::None)
                | J::LeftOuter(JoinConstraint::None)
                | J::Right(JoinConstraint::None)
                | J::RightOuter(JoinConstraint::None)
                | J::FullOuter(JoinConstraint::None) => {
                    "write its condition after ON, or CROSS JOIN"
                }
                J::Join(_)
                | J::Inner(_)
                | J::Left(_)
                | J::LeftOuter(_)
                | J::Right(_)
                | J::RightOuter(_)
                | J::FullOuter(_) => continue,
                J::Semi(_) | J::LeftSemi(_) => "write `WHERE EXISTS (SELECT … WHERE …)`",
                J::Anti(_) | J::LeftAnti(_) => "write `WHERE NOT EXISTS (SELECT … WHERE …)`",
                J::RightSemi(_) | J::RightAnti(_) => {
                    "turn the tables around, and write `WHERE EXISTS (…)` or `WHERE NOT EXISTS (…)`"
                }
                _ => "joins are INNER, LEFT, RIGHT, FULL and CROSS",
            };
            return self.fail(
                line,
                &format!("`{}` is not possible in a mart", written()),
                instead,
            );
        }
        PASSED
    }

    /// Notes an UNNEST after FROM that reads columns.
    pub(super) fn unnest(
        &mut self,
        factor: &TableFactor,
        arrays: &[Expr],
        alias: Option<&TableAlias>,
    ) {
        let first = arrays.iter().find(|array| {
            let read = visit_expressions(*array, |part| match column(part) {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            });
            read.is_break()
        });
        let Some(array) = first else { return };
        let name = alias.map_or("item", |alias| {
            let first = alias.columns.first().map(|column| &column.name);
            first.unwrap_or(&alias.name).value.as_str()
        });
        let list = column(array).map_or_else(|| array.to_string(), |name| name.to_string());
        self.notes.beside.push(Beside {
            text: format!("UNNEST({array})"),
            line: line_of(factor).or_else(|| line_of(array)),
            instead: format!(
                "put unnest() into the SELECT of a sub-query: `FROM (SELECT *, unnest({list}) AS {name} FROM …)`"
            ),
        });
    }

    /// Checks a name after FROM or JOIN, and notes it.
    pub(super) fn relation(&mut self, relation: &ObjectName) -> Passed {
        // The parser keeps no place for a quoted name.
        let written = relation.to_string();
        let line = line_of(relation).or_else(|| {
            self.text
                .lines()
                .position(|line| line.contains(&written))
                .map(|i| i + 1)
        });
        let [part] = relation.0.as_slice() else {
            return self.fail(
                line,
                &format!("`{relation}` is not the name of a table"),
                "tables of the lake, references and marts have plain names, without a schema and without a path",
            );
        };
        let Some(name) = part.as_ident() else {
            return self.fail(
                line,
                &format!("`{relation}` is a function, not a table"),
                ONLY_TABLES,
            );
        };
        if name.quote_style == Some('\'') {
            return self.fail(
                line,
                &format!("{name} is a file, not a table"),
                "declare it in the configuration under `[references]` and use its name",
            );
        }
        self.notes.relations.push((folded(name), line));
        PASSED
    }

    /// Checks a table that is named in FROM.
    fn named_table(&self, factor: &TableFactor) -> Passed {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } = factor
        else {
            return PASSED;
        };
        let line = line_of(name);
        if args.is_some() {
            let message = format!("`{name}(…)` is a table function");
            return self.fail(line, &message, ONLY_TABLES);
        }
        self.without(
            line,
            &[
                (!with_hints.is_empty(), "WITH and hints"),
                (
                    version.is_some(),
                    version.as_ref().map_or("", version_clause),
                ),
                (*with_ordinality, "WITH ORDINALITY"),
                (!partitions.is_empty(), "PARTITION"),
                (json_path.is_some(), "a path behind a table"),
                (sample.is_some(), sample_clause(sample.as_ref())),
                (!index_hints.is_empty(), "an index hint"),
            ],
        )?;
        self.alias(alias.as_ref())
    }

    /// Checks one item of FROM.
    pub(super) fn table(&mut self, factor: &TableFactor) -> Passed {
        match factor {
            TableFactor::Table { .. } => self.named_table(factor),
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample,
            } => {
                let line = line_of(factor);
                if let Some(alias) = alias {
                    self.counted(alias, &subquery.body)?;
                }
                if *lateral {
                    self.notes.beside.push(Beside {
                        text: "LATERAL".to_owned(),
                        line: self.line(line, "LATERAL"),
                        instead: "write it as a JOIN with a sub-query that has a GROUP BY"
                            .to_owned(),
                    });
                }
                self.without(line, &[(sample.is_some(), sample_clause(sample.as_ref()))])?;
                self.alias(alias.as_ref())
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias: _,
                with_ordinality: _,
            } => {
                self.unnest(factor, array_exprs, alias.as_ref());
                self.without(
                    line_of(factor),
                    &[(*with_offset, "WITH OFFSET; write WITH ORDINALITY")],
                )?;
                self.alias(alias.as_ref())
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.joins(table_with_joins)?;
                self.alias(alias.as_ref())
            }
            TableFactor::Function { name, .. }
                if name.to_string().eq_ignore_ascii_case("unnest") =>
            {
                self.fail(
                    line_of(name),
                    "LATERAL in front of UNNEST is not possible in a mart",
                    "leave LATERAL out: UNNEST reads the tables before it anyway",
                )
            }
            TableFactor::Function { name, .. } => self.fail(
                line_of(name),
                &format!("`{name}(…)` is a table function"),
                ONLY_TABLES,
            ),
            TableFactor::TableFunction { .. } => self.fail(
                line_of(factor),
                "a table function is not possible in a mart",
                ONLY_TABLES,
            ),
            other => self.fail(
                line_of(other),
                &format!("`{other}` is not possible in a mart"),
                "write it as a plain SELECT",
            ),
        }
    }
}

/// Whether a column of a SELECT is written as a CAST.
fn is_cast(item: &SelectItem) -> bool {
    let (SelectItem::UnnamedExpr(expression)
    | SelectItem::ExprWithAlias {
        expr: expression, ..
    }) = item
    else {
        return false;
    };
    let mut expression = expression;
    while let Expr::Nested(inner) = expression {
        expression = inner;
    }
    matches!(expression, Expr::Cast { .. })
}

/// The clause that names a version of a table.
fn version_clause(version: &TableVersion) -> &'static str {
    match version {
        TableVersion::ForSystemTimeAsOf(_) => "FOR SYSTEM_TIME AS OF",
        TableVersion::TimestampAsOf(_) => "TIMESTAMP AS OF",
        TableVersion::VersionAsOf(_) => "VERSION AS OF",
        TableVersion::Function(_) => "a version of a table",
        TableVersion::Changes { .. } => "CHANGES",
    }
}

/// The clause that takes a sample of a table; empty where there is none.
fn sample_clause(sample: Option<&TableSampleKind>) -> &'static str {
    match sample {
        Some(
            TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample),
        ) => match sample.modifier {
            TableSampleModifier::Sample => "SAMPLE",
            TableSampleModifier::TableSample => "TABLESAMPLE",
        },
        None => "",
    }
}
