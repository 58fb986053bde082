//! The results of `rawmart test` as JUnit XML, which CI servers read.

use quick_xml::escape::escape;

use super::text::shown;
use super::text::tried_lines;
use crate::run::{Tested, TryOutcome};

/// The document. A mart is a suite, and a case is a test case of it.
pub fn junit(tested: &Tested) -> String {
    let mut marts: Vec<&str> = tested
        .cases
        .iter()
        .map(|tried| tried.mart.as_str())
        .collect();
    marts.dedup();
    let mut lines = vec![
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned(),
        format!(
            "<testsuites name=\"rawmart\" tests=\"{}\" failures=\"{}\">",
            tested.cases.len(),
            tested.failed()
        ),
    ];
    for mart in marts {
        let cases = tested.cases.iter().filter(|tried| tried.mart == mart);
        let failed = cases
            .clone()
            .filter(|tried| tried.outcome == TryOutcome::Failed);
        let (all, failed, mart) = (cases.clone().count(), failed.count(), text(mart));
        lines.push(format!(
            "  <testsuite name=\"{mart}\" tests=\"{all}\" failures=\"{failed}\">"
        ));
        for tried in cases {
            let head = format!(
                "    <testcase classname=\"{mart}\" name=\"{}\"",
                text(&tried.case)
            );
            match tried.outcome {
                TryOutcome::Failed => {
                    let told = tried_lines(tried);
                    let first = told.first().map_or("failed", String::as_str);
                    let whole: Vec<String> = told.iter().map(|line| text(line)).collect();
                    lines.push(format!(
                        "{head}><failure message=\"{}\">{}</failure></testcase>",
                        text(first),
                        whole.join("\n")
                    ));
                }
                TryOutcome::Passed | TryOutcome::Blessed => lines.push(format!("{head}/>")),
            }
        }
        lines.push("  </testsuite>".to_owned());
    }
    lines.push("</testsuites>\n".to_owned());
    lines.join("\n")
}

/// Text without the characters that XML does not have, escaped.
fn text(text: &str) -> String {
    escape(shown(text).as_str()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Tried;

    #[test]
    fn a_document_has_a_suite_for_each_mart_and_escapes_texts() {
        let tried = |mart: &str, case: &str, error: Option<&str>| Tried {
            mart: mart.to_owned(),
            case: case.to_owned(),
            outcome: match error {
                Some(_) => TryOutcome::Failed,
                None => TryOutcome::Passed,
            },
            rows: 1,
            error: error.map(str::to_owned),
            differences: None,
            checks: None,
        };
        let tested = Tested {
            folder: "f".to_owned(),
            cases: vec![
                tried("a", "one", None),
                tried("a", "two", Some("1 < 2 & \"x\u{7}\"")),
                tried("b", "one", None),
            ],
            untested: Vec::new(),
        };
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites name=\"rawmart\" tests=\"3\" failures=\"1\">
  <testsuite name=\"a\" tests=\"2\" failures=\"1\">
    <testcase classname=\"a\" name=\"one\"/>
    <testcase classname=\"a\" name=\"two\"><failure message=\"1 &lt; 2 &amp; &quot;x\\u{7}&quot;\">\
1 &lt; 2 &amp; &quot;x\\u{7}&quot;</failure></testcase>
  </testsuite>
  <testsuite name=\"b\" tests=\"1\" failures=\"0\">
    <testcase classname=\"b\" name=\"one\"/>
  </testsuite>
</testsuites>
";
        assert_eq!(junit(&tested), expected);
    }
}
