use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use datafusion::common::assert_batches_eq;
use datafusion::parquet::arrow::ArrowWriter;

use super::infer::OfCells;
use super::*;

/// All rows as one batch.
fn read(
    reference: &Reference,
    bytes: &[u8],
) -> Result<(SchemaRef, Vec<RecordBatch>), ReferenceError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let mut batches = Vec::new();
    let schema = super::read(reference, file.path(), &mut |schema, batch| {
        assert_eq!(*schema, batch.schema());
        batches.push(batch);
        Ok::<_, ReferenceError>(())
    })?;
    let batch = arrow::compute::concat_batches(&schema, &batches).unwrap();
    Ok((schema, vec![batch]))
}

fn reference(format: ReferenceFormat) -> Reference {
    Reference {
        name: "danji".into(),
        url: "file:///r/danji.csv".into(),
        format,
        columns: None,
        null: vec![String::new(), "NULL".into()],
        delimiter: b',',
        encoding: encoding_rs::UTF_8,
    }
}

fn types(schema: &SchemaRef) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect()
}

#[test]
fn csv_in_cp949_with_nulls_and_inferred_types() {
    let text = "ID,Name,\"households\",code,share,open\n\
                1,\"래미안, 대치\",1278,007,0.5,true\n\
                2,NULL,,120,1e3,FALSE\n";
    let (bytes, _, wrong) = encoding_rs::EUC_KR.encode(text);
    assert!(!wrong);
    let korean = Reference {
        encoding: encoding_rs::EUC_KR,
        ..reference(ReferenceFormat::Csv)
    };
    let (schema, batches) = read(&korean, &bytes).unwrap();
    assert_eq!(
        types(&schema),
        [
            "id Int64",
            "name Utf8",
            "households Int64",
            "code Utf8",
            "share Float64",
            "open Boolean"
        ]
    );
    assert_batches_eq!(
        [
            "+----+--------------+------------+------+--------+-------+",
            "| id | name         | households | code | share  | open  |",
            "+----+--------------+------------+------+--------+-------+",
            "| 1  | 래미안, 대치 | 1278       | 007  | 0.5    | true  |",
            "| 2  |              |            | 120  | 1000.0 | false |",
            "+----+--------------+------------+------+--------+-------+",
        ],
        &batches
    );
    let error = read(&reference(ReferenceFormat::Csv), &bytes).unwrap_err();
    assert_eq!(error.line, Some(2), "{error}");
    assert!(
        error.to_string().contains("not UTF-8; declare `encoding`"),
        "{error}"
    );
}

#[test]
fn inference_is_never_lossy() {
    for (cells, kind) in [
        (vec!["1", "-20", "0"], "bigint"),
        (vec!["1", "2.50"], "double"),
        (vec!["1", "01"], "string"),
        (vec!["00.5"], "string"),
        (vec!["9223372036854775808"], "string"),
        (vec!["9007199254740993", "0.5"], "string"),
        (vec!["0.30000000000000004", "0.10000000000000001"], "double"),
        (vec!["1e3", "0.0", "-1.250", "4.9e-324"], "double"),
        (vec!["0.1234567890123456789"], "string"),
        (vec!["9007199254740993.5"], "string"),
        (vec!["1e400"], "string"),
        (vec!["1e-400"], "string"),
        (vec!["1."], "string"),
        (vec!["NaN"], "string"),
        (vec![" 1"], "string"),
        (vec!["True", "false"], "boolean"),
        (vec!["2019-04-02", "0001-12-31"], "date"),
        (vec!["2019-04-02", "2019-02-29"], "string"),
        (vec!["2019-04-02", "2019-04"], "string"),
        (vec!["2019/04/02"], "string"),
        (vec!["20190402"], "bigint"),
        (vec!["0000-01-01"], "string"),
        (vec![], "string"),
    ] {
        let mut inferred = OfCells::default();
        cells.iter().for_each(|cell| inferred.note(cell));
        assert_eq!(inferred.kind().to_string(), kind, "{cells:?}");
    }
}

#[test]
fn declared_columns_are_cast_and_a_misfit_names_its_line() {
    let declared = |text: &str, columns: &[(&str, &str)]| {
        let columns = columns
            .iter()
            .map(|(n, k)| ((*n).to_owned(), k.parse().unwrap()))
            .collect();
        let reference = Reference {
            columns: Some(columns),
            ..reference(ReferenceFormat::Csv)
        };
        read(&reference, text.as_bytes())
    };
    let text = "\u{feff}a,b,c,d,e\n 5 ,2019-04-02,2019-04-02T00:00:00Z,1.25,\"[1,2]\"\n,,,,\n";
    let (schema, batches) = declared(
        text,
        &[
            ("b", "date"),
            ("a", "int"),
            ("c", "timestamp"),
            ("d", "decimal(5,2)"),
            ("e", "array<bigint>"),
        ],
    )
    .unwrap();
    assert_eq!(
        types(&schema)[..3],
        ["b Date32", "a Int32", "c Timestamp(ms, \"UTC\")"]
    );
    assert_batches_eq!(
        [
            "+------------+---+----------------------+------+--------+",
            "| b          | a | c                    | d    | e      |",
            "+------------+---+----------------------+------+--------+",
            "| 2019-04-02 | 5 | 2019-04-02T00:00:00Z | 1.25 | [1, 2] |",
            "|            |   |                      |      |        |",
            "+------------+---+----------------------+------+--------+",
        ],
        &batches
    );
    for (text, kind, line, part) in [
        ("a\n1\n\n\"x\ny\"\n", "bigint", Some(4), "is no bigint"),
        (
            "a\n3000000000\n",
            "int",
            Some(2),
            "`3000000000` in column `a` is no int",
        ),
        ("a\n{\n", "json", Some(2), "is no json"),
        ("a\n1.25\n1.255\n", "decimal(5,2)", Some(3), "`1.255` in"),
        ("a\n1234\n", "decimal(5,2)", Some(2), "is no decimal(5,2)"),
        ("a\n1,5\n", "decimal(5,2)", Some(2), "2 fields"),
        ("a\n+\n", "decimal(5,2)", Some(2), "`+` in"),
        ("a\n-.\n", "decimal(5,2)", Some(2), "`-.` in"),
        (
            "a\n\n\n\"x\"\n1,2\n",
            "string",
            Some(5),
            "2 fields, the header 1",
        ),
        ("b\n1\n", "int", None, "no column `a`"),
        ("a,A\n1,2\n", "int", Some(1), "two columns `a`"),
        (
            "a,b\n1,2\n1,2,3\n",
            "int",
            Some(3),
            "3 fields, the header 2",
        ),
        ("", "int", None, "the file is empty"),
    ] {
        let error = declared(text, &[("a", kind)]).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.to_string().contains(part), "{text:?}: {error}");
    }
}

#[test]
fn decimals_are_exact_however_they_are_spelt() {
    let text = "a\n.50\n+1\n007.5\n-.25\n1e2\n0\n-000\n 12.30 \n999.99\n";
    let reference = Reference {
        columns: Some(vec![("a".into(), "decimal(5,2)".parse().unwrap())]),
        ..reference(ReferenceFormat::Csv)
    };
    let (_, batches) = read(&reference, text.as_bytes()).unwrap();
    let values = batches[0]
        .column(0)
        .as_primitive::<arrow::datatypes::Decimal128Type>();
    let expected = [50, 100, 750, -25, 10_000, 0, 0, 1_230, 99_999];
    assert_eq!(values.values(), &expected);
}

#[test]
fn numbers_of_ndjson_keep_their_digits() {
    let inferred = |values: &str| {
        let text: String = values
            .split(' ')
            .map(|value| format!("{{\"a\": {value} }}\n"))
            .collect();
        let (schema, batches) = read(&reference(ReferenceFormat::Ndjson), text.as_bytes()).unwrap();
        (types(&schema).remove(0), batches[0].column(0).clone())
    };
    for (values, kind) in [
        ("1 -9223372036854775808", "a Int64"),
        ("1 18446744073709551615", "a Utf8"),
        ("123456789012345678901234567890", "a Utf8"),
        ("0.5 9007199254740992", "a Float64"),
        ("0.5 9007199254740993", "a Utf8"),
        ("0.1 1e3 -0.0 null", "a Float64"),
        ("0.1234567890123456789", "a Utf8"),
        ("1e400", "a Utf8"),
        ("true null", "a Boolean"),
        ("1 true", "a Utf8"),
    ] {
        let (found, column) = inferred(values);
        assert_eq!(found, kind, "{values}");
        if kind == "a Utf8" {
            let texts: Vec<_> = column.as_string::<i32>().iter().flatten().collect();
            assert_eq!(texts.join(" "), values);
        }
    }
    let text = "{\"d\":1234567890123456789.0123456789,\"l\":[18446744073709551615]}\n";
    let reference = Reference {
        columns: Some(vec![
            ("d".into(), "decimal(38,10)".parse().unwrap()),
            ("l".into(), "array<decimal(20,0)>".parse().unwrap()),
        ]),
        ..reference(ReferenceFormat::Ndjson)
    };
    let (_, batches) = read(&reference, text.as_bytes()).unwrap();
    assert_batches_eq!(
        [
            "+--------------------------------+------------------------+",
            "| d                              | l                      |",
            "+--------------------------------+------------------------+",
            "| 1234567890123456789.0123456789 | [18446744073709551615] |",
            "+--------------------------------+------------------------+",
        ],
        &batches
    );
}

/// Where no columns are declared, each column of the file is held and spilled on its own.
#[test]
fn a_file_of_very_many_columns_is_read_where_they_are_declared() {
    let line = |cell: &dyn Fn(usize) -> String| (0..20_000).map(cell).collect::<Vec<_>>().join(",");
    let csv = format!(
        "{}\n{}\n",
        line(&|i| format!("c{i}")),
        line(&|i| i.to_string())
    );
    let ndjson = format!("{{{}}}\n", line(&|i| format!("\"c{i}\":{i}")));
    for (format, text) in [
        (ReferenceFormat::Csv, csv),
        (ReferenceFormat::Ndjson, ndjson),
    ] {
        let mut reference = reference(format);
        let error = read(&reference, text.as_bytes()).unwrap_err().to_string();
        let parts = ["more than 2000 columns", "declare the columns"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        reference.columns = Some(vec![("c19999".into(), "bigint".parse().unwrap())]);
        let (schema, batches) = read(&reference, text.as_bytes()).unwrap();
        assert_eq!(types(&schema), ["c19999 Int64"]);
        let numbers = batches[0]
            .column(0)
            .as_primitive::<arrow::datatypes::Int64Type>();
        assert_eq!(numbers.values(), &[19_999]);
    }
}

#[test]
fn ndjson_members_come_and_go() {
    let reference = reference(ReferenceFormat::Ndjson);
    let text = "{\"Id\":1,\"x\":\"a\",\"m\":1}\n\n{\"id\":2,\"y\":{\"k\":[1]},\"m\":\"q\"}\n";
    let (schema, batches) = read(&reference, text.as_bytes()).unwrap();
    assert_eq!(types(&schema), ["id Int64", "m Utf8", "x Utf8", "y Utf8"]);
    assert_eq!(
        batches[0].column(3).as_string::<i32>().value(1),
        "{\"k\":[1]}"
    );
    assert!(batches[0].column(2).is_null(1));
    for (text, line, part) in [
        ("{\"a\":1}\n[1]\n", 2, "not one JSON object"),
        ("{\"a\":1}\n\n{\"a\":\n", 3, "not one JSON object"),
        ("{\"a\":1,\"A\":2}\n", 1, "two members `a`"),
    ] {
        let error = read(&reference, text.as_bytes()).unwrap_err();
        assert_eq!(error.line, Some(line), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn parquet_is_cast_to_the_types_of_the_lake() {
    let batch = RecordBatch::try_from_iter(vec![
        (
            "ID",
            Arc::new(arrow::array::UInt32Array::from(vec![7])) as ArrayRef,
        ),
        (
            "at",
            Arc::new(arrow::array::TimestampNanosecondArray::from(vec![
                1_500_000_000,
            ])) as ArrayRef,
        ),
    ])
    .unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let reference = reference(ReferenceFormat::Parquet);
    let (schema, batches) = read(&reference, &bytes).unwrap();
    assert_eq!(types(&schema), ["id Int64", "at Timestamp(ms, \"UTC\")"]);
    assert_eq!(batches[0].num_rows(), 1);
    let error = read(&reference, b"PAR1").unwrap_err().to_string();
    assert!(error.contains("not a Parquet file"), "{error}");
}

#[test]
fn csv_may_have_another_delimiter_and_be_compressed() {
    use std::io::Write;

    let text = "\u{feff}code;\"na;me\";since;share\n870;\"x;\"\"y\"\"\";2019-04-02;0,5\n871;;;1\n";
    let semicolon = Reference {
        delimiter: b';',
        ..reference(ReferenceFormat::Csv)
    };
    let expected = [
        "+------+-------+------------+-------+",
        "| code | na;me | since      | share |",
        "+------+-------+------------+-------+",
        "| 870  | x;\"y\" | 2019-04-02 | 0,5   |",
        "| 871  |       |            | 1     |",
        "+------+-------+------------+-------+",
    ];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for bytes in [text.as_bytes(), &gzip] {
        let (schema, batches) = read(&semicolon, bytes).unwrap();
        let kinds = ["code Int64", "na;me Utf8", "since Date32", "share Utf8"];
        assert_eq!(types(&schema), kinds);
        assert_batches_eq!(expected, &batches);
    }
    // Two members are one file.
    let lines = [b"{\"a\":1}\n".as_slice(), b"{\"a\":2}\n"].map(|line| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(line).unwrap();
        gzip.finish().unwrap()
    });
    let (_, batches) = read(&reference(ReferenceFormat::Ndjson), &lines.concat()).unwrap();
    assert_eq!(batches[0].num_rows(), 2);
    let cut = &gzip[..gzip.len() - 12];
    let error = read(&semicolon, cut).unwrap_err().to_string();
    assert!(
        error.contains("gzip bytes are damaged or cut off"),
        "{error}"
    );
    // The wrong delimiter would make one column of the lines.
    let error = read(&reference(ReferenceFormat::Csv), b"a;b\n1;2\n").unwrap_err();
    assert_eq!(error.line, Some(1));
    assert!(error.to_string().contains("`delimiter = \";\"`"), "{error}");
    let (schema, _) = read(&reference(ReferenceFormat::Csv), b"a\n1;2\n").unwrap();
    assert_eq!(types(&schema), ["a Utf8"]);
}

#[test]
fn the_advice_on_inferred_types_names_the_columns_that_the_sql_names() {
    let (schema, _) = read(
        &reference(ReferenceFormat::Csv),
        b"code,label,since,share\n870,x,2019-04-02,0.5\n",
    )
    .unwrap();
    let declared = Reference {
        columns: Some(Vec::new()),
        ..reference(ReferenceFormat::Csv)
    };
    let inferred = reference(ReferenceFormat::Csv);
    let advice = |reference: &Reference, sql: &str, error: &str| {
        of_inferred_types(std::iter::once((reference, schema.as_ref())), sql, error)
    };
    let cast = "Cannot cast string 'A-1' to value of bigint type";
    let sql = "SELECT c.label, c.since FROM e JOIN danji c ON c.Code = e.code";
    assert_eq!(
        advice(&inferred, sql, cast),
        "; the reference danji was read with `code` as bigint, inferred from its values: if such a column is text, \
         write `columns = { code = \"string\", label = \"string\", since = \"date\", share = \"double\" }` in \
         [references.danji]"
    );
    assert_eq!(advice(&declared, sql, cast), "");
    assert_eq!(advice(&inferred, "SELECT c.label FROM danji c", cast), "");
    assert_eq!(advice(&inferred, sql, "cannot divide by zero"), "");
    let both = advice(&inferred, sql, "cannot compare or combine date and bigint");
    assert!(
        both.contains("`code` as bigint and `since` as date"),
        "{both}"
    );
}
