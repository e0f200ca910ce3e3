use crate::test_support::Memory;
use crate::value::{date_text, float_text, numeric_text, timestamp_wire_text};
use model::Value;

fn show(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float64(value) => float_text(*value),
        Value::Float32(value) => format!("{value}f"),
        Value::Number(value) => format!("{}n", numeric_text(*value)),
        Value::Text(text) => format!("'{text}'"),
        Value::Bytes(bytes) => format!("b{bytes:?}"),
        Value::Date(days) => date_text(*days),
        Value::Timestamp { seconds, nanos } => timestamp_wire_text(*seconds, *nanos),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
        Value::Tuple(items) => format!(
            "{{{}}}",
            items.iter().map(show).collect::<Vec<_>>().join(",")
        ),
        other => format!("{other:?}"),
    }
}

fn rows(memory: &mut Memory, text: &str) -> String {
    match memory.query(text) {
        Ok(rows) => rows
            .iter()
            .map(|row| row.iter().map(show).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("; "),
        Err(error) => format!("ERROR {error}"),
    }
}

#[test]
fn scalar_functions() {
    let mut memory = Memory::new(&[]);
    for (text, wanted) in [
        (
            "1 + 2 * 3, 7 / 2, DIV(-7, 2), MOD(-7, 2), 5 & 3, 5 | 3, 5 ^ 3, 1 << 3, ~0",
            "7 3.5 -3 -1 1 7 6 8 -1",
        ),
        (
            "9223372036854775807 + 1",
            "ERROR int64 overflow: 9223372036854775807 + 1 [at 1:8]",
        ),
        ("-9223372036854775808", "-9223372036854775808"),
        (
            "SAFE.MOD(1, 0), SAFE_DIVIDE(1, 0), IEEE_DIVIDE(1, 0)",
            "NULL NULL inf",
        ),
        (
            "NUMERIC '1.5' * 2, ROUND(NUMERIC '2.5'), TRUNC(2.7), ROUND(-2.5), ROUND(1234.567, -2)",
            "3n 3n 2 -3 1200",
        ),
        (
            "NULL = NULL, NULL IS NULL, NOT NULL, NULL AND FALSE, NULL OR TRUE",
            "NULL true NULL false true",
        ),
        (
            "1 IN (1, NULL), 2 IN (1, NULL), 2 NOT IN (1, 3), 1 IN UNNEST([])",
            "true NULL true false",
        ),
        (
            "'abc' LIKE 'a%', 'abc' LIKE 'a_c', 'a%c' LIKE 'a\\\\%c', 'abc' LIKE 'ABC', '' LIKE '%'",
            "true true true false true",
        ),
        (
            "CASE WHEN FALSE THEN 1 END, CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE 'c' END",
            "NULL 'b'",
        ),
        (
            "SUBSTR('hello', 2, 3), SUBSTR('hello', -3), LEFT('ab', 1), RIGHT('ab', 1), LPAD('a', 3, '-')",
            "'ell' 'llo' 'a' 'b' '--a'",
        ),
        (
            "SPLIT('a,b,c'), ARRAY_TO_STRING(['a', NULL, 'b'], '-'), REPEAT('ab', 2), REVERSE('äb')",
            "['a','b','c'] 'a-b' 'abab' 'bä'",
        ),
        (
            "TO_HEX(b'\\xff\\x00'), FROM_HEX('0a'), TO_BASE64(b'ab'), STRPOS('abc', 'c')",
            "'ff00' b[10] 'YWI=' 3",
        ),
        (
            "DATE '2020-01-31' + 1, DATE_ADD(DATE '2020-01-31', INTERVAL 1 MONTH), DATE_DIFF('2020-03-01', '2020-02-01', DAY)",
            "2020-02-01 2020-02-29 29",
        ),
        (
            "EXTRACT(YEAR FROM DATE '2020-05-06'), EXTRACT(HOUR FROM TIMESTAMP '2020-05-06T07:08:09Z' AT TIME ZONE 'UTC')",
            "2020 7",
        ),
        (
            "TIMESTAMP '2020-07-01 12:00:00', TIMESTAMP '2020-01-01 12:00:00+02', TIMESTAMP '2020-01-01 00:00:00 Europe/Berlin'",
            "2020-07-01T19:00:00Z 2020-01-01T10:00:00Z 2019-12-31T23:00:00Z",
        ),
        (
            "CAST(TIMESTAMP '2020-01-01T00:00:00.5Z' AS STRING), CAST(TIMESTAMP '2020-01-01T00:00:00Z' AS DATE)",
            "'2019-12-31 16:00:00.500-08' 2019-12-31",
        ),
        (
            "UNIX_SECONDS(TIMESTAMP_SECONDS(5)), TIMESTAMP_DIFF(TIMESTAMP_SECONDS(90), TIMESTAMP_SECONDS(0), MINUTE)",
            "5 1",
        ),
        (
            "CAST('12' AS INT64), CAST(1.5 AS INT64), CAST(TRUE AS STRING), CAST('0x1f' AS INT64), SAFE_CAST('x' AS DATE)",
            "12 2 'true' 31 NULL",
        ),
        ("CAST('x' AS INT64)", "ERROR Bad int64 value: x [at 1:8]"),
        (
            "[1, 2, 3][OFFSET(0)], [1, 2, 3][ORDINAL(3)], [1][SAFE_OFFSET(5)], ARRAY_LENGTH([1, NULL])",
            "1 3 NULL 2",
        ),
        (
            "STRUCT(1 AS a, 'x' AS b), (1, 2) = (1, 2), (1, NULL) = (1, 2), (1, NULL) = (2, 2)",
            "{1,'x'} true NULL false",
        ),
        (
            "GREATEST(1, 3, 2), LEAST('b', 'a'), IFNULL(NULL, 4), NULLIF(1, 1), GENERATE_ARRAY(1, 5, 2)",
            "3 'a' 4 NULL [1,3,5]",
        ),
        (
            "CURRENT_TIMESTAMP(), CURRENT_DATE(), CURRENT_DATE('UTC')",
            "2020-01-01T00:00:00Z 2019-12-31 2020-01-01",
        ),
        (
            "CAST('nan' AS FLOAT64) = CAST('nan' AS FLOAT64), CAST('inf' AS FLOAT64) > 1e308",
            "false true",
        ),
        (
            "CONCAT('a', 'b', 'c'), LENGTH('äö'), BYTE_LENGTH('äö'), TRIM('  a '), LTRIM('xxa', 'x')",
            "'abc' 2 4 'a' 'a'",
        ),
        (
            "CAST(1.0 AS STRING), CAST(1e20 AS STRING), CAST(0.1 AS STRING), CAST(NUMERIC '1.50' AS STRING)",
            "'1' '1e+20' '0.1' '1.5'",
        ),
    ] {
        assert_eq!(
            rows(&mut memory, &format!("SELECT {text}")),
            wanted,
            "{text}"
        );
    }
}

fn singers() -> Memory {
    let mut memory = Memory::new(&[
        "CREATE TABLE Singers (Id INT64 NOT NULL, Name STRING(10), Age INT64) PRIMARY KEY (Id)",
        "CREATE TABLE Albums (Id INT64 NOT NULL, N INT64 NOT NULL, Title STRING(MAX)) PRIMARY KEY (Id, N DESC), \
         INTERLEAVE IN PARENT Singers",
    ]);
    let effect = memory.manipulate(
        "INSERT INTO Singers (Id, Name, Age) VALUES (1, 'a', 30), (2, 'b', NULL), (3, 'c', 30), (4, 'd', 20)",
    );
    assert_eq!(effect.unwrap().row_count, 4);
    memory
}

#[test]
fn queries_over_a_table() {
    let mut memory = singers();
    for (text, wanted) in [
        ("SELECT * FROM Singers WHERE Id > 2", "3 'c' 30; 4 'd' 20"),
        (
            "SELECT Id FROM Singers ORDER BY Age DESC, Id DESC",
            "3; 1; 4; 2",
        ),
        (
            "SELECT Id FROM Singers ORDER BY Age NULLS LAST LIMIT 2 OFFSET 1",
            "1; 3",
        ),
        (
            "SELECT Age, COUNT(*), COUNT(Age), STRING_AGG(Name, '+') FROM Singers GROUP BY Age ORDER BY 2 DESC, 1",
            "30 2 2 'a+c'; NULL 1 0 'b'; 20 1 1 'd'",
        ),
        (
            "SELECT Age + 1 AS x, SUM(Id) FROM Singers GROUP BY x HAVING SUM(Id) > 2 ORDER BY x",
            "21 4; 31 4",
        ),
        (
            "SELECT SUM(Id), AVG(Age), MIN(Name), MAX(Age), ARRAY_AGG(Age), COUNTIF(Age = 30) FROM Singers",
            "10 26.666666666666668 'a' 30 [30,NULL,30,20] 2",
        ),
        (
            "SELECT COUNT(*), SUM(Id) FROM Singers WHERE FALSE",
            "0 NULL",
        ),
        ("SELECT Age FROM Singers WHERE FALSE GROUP BY Age", ""),
        (
            "SELECT DISTINCT Age FROM Singers ORDER BY Age",
            "NULL; 20; 30",
        ),
        (
            "SELECT x.n FROM (SELECT Name AS n, Id FROM Singers) AS x WHERE x.Id = 2",
            "'b'",
        ),
        (
            "SELECT Id FROM Singers WHERE Age = (SELECT MAX(Age) FROM Singers)",
            "1; 3",
        ),
        (
            "SELECT Id FROM Singers WHERE Id IN (SELECT Id + 1 FROM Singers) ORDER BY Id DESC",
            "4; 3; 2",
        ),
        (
            "SELECT (SELECT Id FROM Singers)",
            "ERROR A scalar subquery cannot produce more than one row",
        ),
        (
            "SELECT v, o FROM UNNEST(['x', 'y']) AS v WITH OFFSET AS o ORDER BY o DESC",
            "'y' 1; 'x' 0",
        ),
        (
            "SELECT 1 AS a UNION ALL SELECT Id FROM Singers WHERE Id > 2 ORDER BY a DESC LIMIT 2",
            "4; 3",
        ),
        (
            "WITH a AS (SELECT Id FROM Singers WHERE Id < 3), b AS (SELECT Id + 10 AS Id FROM a) SELECT * FROM b",
            "11; 12",
        ),
        (
            "SELECT 10 / (Id - 4) FROM Singers",
            "ERROR division by zero: 10 / 0 [at 1:8]",
        ),
        (
            "SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = '' ORDER BY 1",
            "'Albums'; 'Singers'",
        ),
    ] {
        assert_eq!(rows(&mut memory, text), wanted, "{text}");
    }
}

/// Singers 1 to 4; albums of 1, 2 and one whose singer is not there.
fn with_albums() -> Memory {
    let mut memory = Memory::new(&[
        "CREATE TABLE S (Id INT64 NOT NULL, Name STRING(10), Tags ARRAY<STRING(10)>) PRIMARY KEY (Id)",
        "CREATE TABLE A (Id INT64 NOT NULL, Singer INT64, Price FLOAT64) PRIMARY KEY (Id)",
    ]);
    for text in [
        "INSERT INTO S (Id, Name, Tags) VALUES (1, 'a', ['x', 'y']), (2, 'b', []), (3, 'c', NULL), (4, NULL, ['z'])",
        "INSERT INTO A (Id, Singer, Price) VALUES (10, 1, 5), (11, 1, 7), (12, 2, 5), (13, 9, 1), (14, NULL, 2)",
    ] {
        memory.manipulate(text).unwrap();
    }
    memory
}

#[test]
fn joins() {
    let mut memory = with_albums();
    for (text, wanted) in [
        (
            "SELECT S.Name, A.Id FROM S JOIN A ON S.Id = A.Singer ORDER BY 2",
            "'a' 10; 'a' 11; 'b' 12",
        ),
        (
            "SELECT S.Id, A.Id FROM S LEFT JOIN A ON A.Singer = S.Id AND A.Price > 5 ORDER BY 1, 2",
            "1 11; 2 NULL; 3 NULL; 4 NULL",
        ),
        (
            "SELECT s.Id, a.Id FROM S AS s RIGHT OUTER JOIN A AS a ON a.Singer = s.Id WHERE a.Id > 11 ORDER BY 2",
            "2 12; NULL 13; NULL 14",
        ),
        (
            "SELECT s.Id, a.Id FROM S s FULL JOIN A a ON a.Singer = s.Id WHERE s.Id IS NULL OR a.Id IS NULL ORDER BY 1, 2",
            "NULL 13; NULL 14; 3 NULL; 4 NULL",
        ),
        (
            "SELECT COUNT(*), COUNT(DISTINCT s.Id) FROM S s, A a",
            "20 4",
        ),
        (
            "SELECT s.Id, a.Id FROM S s, A a WHERE s.Id = a.Singer AND a.Price = 5 AND s.Id < 2",
            "1 10",
        ),
        (
            "SELECT s.Id, a.Id FROM S s CROSS JOIN A a WHERE s.Id > a.Singer ORDER BY 1, 2 LIMIT 3",
            "2 10; 2 11; 3 10",
        ),
        (
            "SELECT * FROM (SELECT 1 AS k, 'l' AS l UNION ALL SELECT 2, 'm') JOIN (SELECT 2.0 AS k, 'r' AS r) USING (k)",
            "2 'm' 'r'",
        ),
        (
            "SELECT k, l.k, r.k FROM (SELECT 1 AS k) l FULL JOIN (SELECT 2 AS k) r USING (k) ORDER BY k",
            "1 1 NULL; 2 NULL 2",
        ),
        (
            "SELECT s.Id, tag, o FROM S s, UNNEST(s.Tags) AS tag WITH OFFSET AS o ORDER BY 1, 3",
            "1 'x' 0; 1 'y' 1; 4 'z' 0",
        ),
        (
            "SELECT s.Id, tag FROM S s LEFT JOIN s.Tags AS tag WHERE s.Id < 4 ORDER BY 1, 2",
            "1 'x'; 1 'y'; 2 NULL; 3 NULL",
        ),
        (
            "SELECT a.Id FROM A a JOIN S s ON a.Singer = s.Id JOIN A b ON b.Singer = s.Id AND b.Id > a.Id",
            "10",
        ),
        (
            "SELECT s.Name, SUM(a.Price) FROM S s JOIN A a ON a.Singer = s.Id GROUP BY s.Name HAVING COUNT(*) > 1",
            "'a' 12",
        ),
        (
            "SELECT x FROM UNNEST([NULL, 1, 1]) AS x JOIN UNNEST([NULL, 1]) AS y ON x = y",
            "1; 1",
        ),
        ("SELECT Id FROM S JOIN A USING (Id)", ""),
        (
            "SELECT Nothing FROM S JOIN A USING (Name)",
            "ERROR Column Name in USING clause not found on both sides of the JOIN [at 1:37]",
        ),
        (
            "SELECT Id FROM S, A",
            "ERROR Column name Id is ambiguous [at 1:8]",
        ),
        (
            "SELECT Id FROM S JOIN UNNEST([1]) AS Id USING (Id)",
            "ERROR JOIN with UNNEST USING columns is not supported by Tessera yet [at 1:30]",
        ),
    ] {
        assert_eq!(rows(&mut memory, text), wanted, "{text}");
    }
}

#[test]
fn correlated_subqueries() {
    let mut memory = with_albums();
    for (text, wanted) in [
        (
            "SELECT Id, (SELECT COUNT(*) FROM A WHERE A.Singer = S.Id) FROM S ORDER BY Id",
            "1 2; 2 1; 3 0; 4 0",
        ),
        (
            "SELECT Id FROM S WHERE EXISTS (SELECT 1 FROM A WHERE Singer = S.Id AND Price > 5)",
            "1",
        ),
        (
            "SELECT Id FROM S WHERE NOT EXISTS (SELECT 1 FROM A WHERE Singer = S.Id) AND Id < 4",
            "3",
        ),
        (
            "SELECT Id FROM A WHERE 'x' IN (SELECT tag FROM S, UNNEST(S.Tags) tag WHERE S.Id = A.Singer) ORDER BY Id",
            "10; 11",
        ),
        (
            "SELECT s.Id, ARRAY(SELECT Price FROM A WHERE Singer = s.Id ORDER BY Price DESC) FROM S s WHERE s.Id < 3",
            "1 [7,5]; 2 [5]",
        ),
        (
            "SELECT Id FROM S WHERE (SELECT MAX(Price) FROM A WHERE Singer = S.Id) = \
             (SELECT MAX(Price) FROM A WHERE Singer IS NOT NULL) ORDER BY Id",
            "1",
        ),
        // Two levels down, past a subquery that is about no row of its own.
        (
            "SELECT Id, (SELECT MAX(x) FROM UNNEST([0, 1, 2]) AS x WHERE x <= (SELECT COUNT(*) FROM A WHERE Singer = S.Id)) FROM S \
             ORDER BY (SELECT SUM(Price) FROM A WHERE Singer = S.Id) DESC, Id LIMIT 2",
            "1 2; 2 1",
        ),
        (
            "SELECT SUM((SELECT COUNT(*) FROM A WHERE Singer = S.Id)) FROM S",
            "3",
        ),
        (
            "SELECT S.Id FROM S JOIN A ON EXISTS (SELECT 1 FROM UNNEST([1]) AS x WHERE x = S.Id)",
            "ERROR a correlated subquery here is not supported by Tessera yet [at 1:38]",
        ),
        (
            "SELECT COUNT(*), (SELECT COUNT(*) FROM A WHERE Singer = S.Id) FROM S",
            "ERROR a correlated subquery over groups is not supported by Tessera yet [at 1:18]",
        ),
        (
            "SELECT (SELECT Id FROM A WHERE Singer = S.Id) FROM S",
            "ERROR A scalar subquery cannot produce more than one row",
        ),
    ] {
        assert_eq!(rows(&mut memory, text), wanted, "{text}");
    }
    let text = "DELETE FROM S WHERE EXISTS (SELECT 1 FROM A WHERE Singer = S.Id)";
    let error = memory.manipulate(text).unwrap_err().to_string();
    assert!(error.starts_with("a correlated subquery here"), "{error}");
}

#[test]
fn a_correlated_subquery_reads_what_its_row_is_about() {
    let mut memory = with_albums();
    memory.rows_read = 0;
    rows(
        &mut memory,
        "SELECT Id, (SELECT Name FROM S WHERE S.Id = A.Singer) FROM A",
    );
    assert!(memory.rows_read <= 10, "{}", memory.rows_read);
}

#[test]
fn set_operations() {
    let mut memory = Memory::new(&[]);
    let (left, right) = (
        "UNNEST([1, 1, 1, 2, 3, NULL])",
        "UNNEST([1, 1, 3, 4, NULL])",
    );
    for (operation, wanted) in [
        ("UNION DISTINCT", "NULL; 1; 2; 3; 4"),
        ("INTERSECT ALL", "NULL; 1; 1; 3"),
        ("INTERSECT DISTINCT", "NULL; 1; 3"),
        ("EXCEPT ALL", "1; 2"),
        ("EXCEPT DISTINCT", "2"),
    ] {
        let text =
            format!("SELECT * FROM {left} AS x {operation} SELECT * FROM {right} AS x ORDER BY 1");
        assert_eq!(rows(&mut memory, &text), wanted, "{text}");
    }
    let text = "SELECT 1 EXCEPT ALL (SELECT 2 UNION ALL SELECT 1) EXCEPT ALL SELECT 3";
    assert_eq!(rows(&mut memory, text), "");
}

#[test]
fn manipulation() {
    let mut memory = singers();
    let done = |memory: &mut Memory, text: &str| match memory.manipulate(text) {
        Ok(effect) => {
            let returned: Vec<String> = effect
                .returned
                .iter()
                .map(|row| row.iter().map(show).collect::<Vec<_>>().join(" "))
                .collect();
            format!("{} [{}]", effect.row_count, returned.join("; "))
        }
        Err(error) => format!("ERROR {error}"),
    };
    for (text, wanted) in [
        (
            "UPDATE Singers SET Age = Age + 1, Name = UPPER(Name) WHERE Age IS NOT NULL",
            "3 []",
        ),
        (
            "UPDATE Singers SET Name = 'z' WHERE Id = 2 THEN RETURN Id, Name",
            "1 [2 'z']",
        ),
        (
            "INSERT OR IGNORE INTO Singers (Id, Name) VALUES (1, 'no'), (5, 'yes'), (5, 'no')",
            "1 []",
        ),
        (
            "INSERT OR UPDATE INTO Singers (Id, Name) VALUES (1, 'new') THEN RETURN WITH ACTION *",
            "1 [1 'new' 31 'INSERT']",
        ),
        (
            "INSERT INTO Singers (Id) VALUES (1)",
            "ERROR Row [1] in table Singers already exists",
        ),
        (
            "INSERT INTO Singers (Id, Name) VALUES (7, '12345678901')",
            "ERROR New value exceeds the maximum size limit for this column: Singers.Name, size: 11, limit: 10.",
        ),
        (
            "INSERT INTO Singers (Name) VALUES ('x')",
            "ERROR INSERT must specify a value for primary key column Id of table Singers",
        ),
        (
            "INSERT INTO Singers (Id) VALUES (NULL)",
            "ERROR Id must not be NULL in table Singers.",
        ),
        (
            "INSERT INTO Singers (Id, Id) VALUES (1, 2)",
            "ERROR INSERT has columns with duplicate name: Id [at 1:26]",
        ),
        (
            "UPDATE Singers SET Id = 1 WHERE TRUE",
            "ERROR Cannot UPDATE value on non-writable column: Id. Primary key columns cannot be updated [at 1:20]",
        ),
        (
            "INSERT INTO Singers (Id, Age) SELECT Id + 100, Age FROM Singers WHERE Id <= 2",
            "2 []",
        ),
        ("INSERT INTO Albums (Id, N) VALUES (1, 1)", "1 []"),
        (
            "DELETE FROM Singers WHERE Id = 1",
            "ERROR Integrity constraint violation during DELETE/REPLACE. Found child row [1,1] in table Albums.",
        ),
        ("DELETE FROM Albums WHERE TRUE THEN RETURN N", "1 [1]"),
        ("DELETE Singers WHERE Id > 1 AND Id < 100", "4 []"),
    ] {
        assert_eq!(done(&mut memory, text), wanted, "{text}");
    }
    assert_eq!(
        rows(&mut memory, "SELECT * FROM Singers"),
        "1 'new' 31; 101 NULL 31; 102 NULL NULL"
    );
}

#[test]
fn definitions_are_printed_as_they_were_made() {
    let mut memory = Memory::new(&[
        "CREATE TABLE a (x STRING(MAX), id INT64 NOT NULL, `Order` ARRAY<NUMERIC>, t TIMESTAMP OPTIONS \
         (allow_commit_timestamp = true)) PRIMARY KEY (id DESC)",
        "CREATE TABLE b (id INT64 NOT NULL, n BYTES(3)) PRIMARY KEY (id DESC, n), INTERLEAVE IN PARENT a ON DELETE CASCADE",
    ]);
    let tables: Vec<String> = memory
        .catalog
        .tables
        .values()
        .map(|table| crate::definition::create_statement(table, &memory.catalog))
        .collect();
    assert_eq!(
        tables[0],
        "CREATE TABLE a (\n  x STRING(MAX),\n  id INT64 NOT NULL,\n  `Order` ARRAY<NUMERIC>,\n  t TIMESTAMP OPTIONS (\n    \
         allow_commit_timestamp = true\n  ),\n) PRIMARY KEY(id DESC)"
    );
    assert_eq!(
        tables[1],
        "CREATE TABLE b (\n  id INT64 NOT NULL,\n  n BYTES(3),\n) PRIMARY KEY(id DESC, n),\n  INTERLEAVE IN PARENT a ON \
         DELETE CASCADE"
    );
    // What is printed makes the same tables.
    let again = Memory::new(&[&tables[0], &tables[1]]);
    let printed: Vec<String> = again
        .catalog
        .tables
        .values()
        .map(|table| crate::definition::create_statement(table, &again.catalog))
        .collect();
    assert_eq!(printed, tables);
    for (text, wanted) in [
        (
            "CREATE TABLE a (id INT64) PRIMARY KEY (id)",
            "Duplicate name in schema: a.",
        ),
        (
            "CREATE TABLE c (id INT64) PRIMARY KEY (x)",
            "Table c references nonexistent or repeated key column x. [at 1:40]",
        ),
        (
            "CREATE TABLE c (id STRING) PRIMARY KEY (id)",
            "Expected a length: STRING(n) or STRING(MAX) [at 1:20]",
        ),
        (
            "CREATE TABLE c (id JSON) PRIMARY KEY (id)",
            "Column c.id has type JSON, but is part of the primary key. [at 1:39]",
        ),
        (
            "CREATE TABLE c (id INT64 NOT NULL) PRIMARY KEY (id), INTERLEAVE IN PARENT a",
            "Interleaved table c must have the primary key of its parent a as the first columns of its own (column id at position 1 does not match).",
        ),
        (
            "DROP TABLE a",
            "Cannot drop table a with interleaved tables: \"b\".",
        ),
        (
            "ALTER TABLE a ADD COLUMN z INT64 NOT NULL",
            "Cannot add NOT NULL column a.z to existing table a.",
        ),
        (
            "ALTER TABLE a ALTER COLUMN x STRING(5)",
            "Cannot change type of column a.x from STRING(MAX) to STRING(5).",
        ),
        (
            "ALTER TABLE a DROP COLUMN id",
            "Cannot drop key column id from table a.",
        ),
    ] {
        let error = memory.define(text).unwrap_err();
        assert_eq!(error.in_text(text).to_string(), wanted, "{text}");
    }
    memory
        .define("ALTER TABLE b ALTER COLUMN n BYTES(MAX)")
        .unwrap();
}

/// Two tables with rows, for statements that lock.
fn singers_and_albums() -> Memory {
    let mut memory = Memory::new(&[
        "CREATE TABLE s (k INT64 NOT NULL, name STRING(MAX), info STRING(MAX)) PRIMARY KEY (k)",
        "CREATE TABLE a (k INT64 NOT NULL, budget INT64) PRIMARY KEY (k)",
    ]);
    memory
        .manipulate("INSERT INTO s (k, name, info) VALUES (1, 'n', 'i'), (2, 'm', 'j')")
        .unwrap();
    memory
        .manipulate("INSERT INTO a (k, budget) VALUES (1, 10)")
        .unwrap();
    memory
}

#[test]
fn for_update_keeps_from_others_what_it_scans() {
    let mut memory = singers_and_albums();
    for (text, wanted) in [
        ("SELECT name FROM s", ""),
        ("SELECT name FROM s WHERE k = 1 FOR UPDATE", "s(name)"),
        ("SELECT k FROM s FOR UPDATE", "s()"),
        (
            "SELECT name, info, budget FROM s JOIN a ON s.k = a.k FOR UPDATE",
            "a(budget) s(name, info)",
        ),
        (
            "SELECT name FROM s JOIN (SELECT k FROM a WHERE budget > 1 FOR UPDATE) AS b ON b.k = s.k",
            "a(budget)",
        ),
        (
            "SELECT name FROM (SELECT name, info FROM s ORDER BY k LIMIT 1) FOR UPDATE",
            "s(name, info)",
        ),
        // An expression's subquery and a WITH query say so themselves, or not.
        (
            "SELECT name FROM s WHERE k = (SELECT k FROM a WHERE budget = 10) FOR UPDATE",
            "s(name)",
        ),
        (
            "SELECT name FROM s WHERE EXISTS (SELECT 1 FROM a WHERE a.k = s.k FOR UPDATE)",
            "a()",
        ),
        (
            "WITH w AS (SELECT name FROM s) SELECT * FROM w FOR UPDATE",
            "",
        ),
        (
            "WITH w AS (SELECT name FROM s FOR UPDATE) SELECT * FROM w",
            "s(name)",
        ),
        (
            "SELECT k FROM a UNION ALL SELECT k FROM s FOR UPDATE",
            "a() s()",
        ),
        (
            "(SELECT k FROM a FOR UPDATE) UNION ALL SELECT k FROM s",
            "a()",
        ),
    ] {
        memory.locked.clear();
        let plan = memory.plan(text).unwrap();
        assert_eq!(plan.for_update, text.contains("FOR UPDATE"), "{text}");
        let found = rows(&mut memory, text);
        assert!(
            !found.is_empty() && !found.contains("ERROR"),
            "{text}: {found}"
        );
        let locked: Vec<&str> = memory.locked.iter().map(String::as_str).collect();
        assert_eq!(locked.join(" "), wanted, "{text}");
    }
    let refused = rows(&mut memory, "SELECT 1 FOR UPDATE");
    assert!(
        refused.contains("FOR UPDATE takes a query with a FROM clause"),
        "{refused}"
    );
}

#[test]
fn a_statement_that_locks_scanned_ranges_keeps_all_that_it_scans_from_others() {
    let mut memory = singers_and_albums();
    let exclusive = "@{LOCK_SCANNED_RANGES=exclusive}";
    for (hint, text, wanted) in [
        (exclusive, "SELECT name FROM s", "s(name)"),
        ("@{lock_scanned_ranges=SHARED}", "SELECT name FROM s", ""),
        (
            "@{optimizer_version=1, lock_scanned_ranges=Exclusive}",
            "SELECT name FROM s JOIN (SELECT k FROM a WHERE budget > 1) AS b ON b.k = s.k",
            "a(budget) s(name, info)",
        ),
        (
            exclusive,
            "WITH w AS (SELECT name FROM s) SELECT * FROM w WHERE EXISTS (SELECT 1 FROM a)",
            "a() s(name)",
        ),
        (exclusive, "SELECT 1", ""),
    ] {
        memory.locked.clear();
        let text = format!("{hint} {text}");
        // It is no more than a hint, and goes in any transaction.
        assert!(!memory.plan(&text).unwrap().for_update, "{text}");
        let found = rows(&mut memory, &text);
        assert!(!found.contains("ERROR"), "{text}: {found}");
        let locked: Vec<&str> = memory.locked.iter().map(String::as_str).collect();
        assert_eq!(locked.join(" "), wanted, "{text}");
    }
    for (hint, text, wanted) in [
        ("", "UPDATE s SET info = 'x' WHERE name = 'n'", ""),
        (
            exclusive,
            "UPDATE s SET info = 'x' WHERE name = 'n'",
            "s(name, info)",
        ),
        (
            exclusive,
            "UPDATE s SET info = 'x' WHERE k = 1 AND EXISTS (SELECT budget FROM a)",
            "a(budget) s(info)",
        ),
        (
            exclusive,
            "INSERT INTO s (k, name) SELECT 10 + budget, 'z' FROM a",
            "a(budget)",
        ),
    ] {
        memory.locked.clear();
        memory.manipulate(&format!("{hint} {text}")).unwrap();
        let locked: Vec<&str> = memory.locked.iter().map(String::as_str).collect();
        assert_eq!(locked.join(" "), wanted, "{hint} {text}");
    }
    for (text, why) in [
        (
            "@{LOCK_SCANNED_RANGES=everything} SELECT 1",
            "is EXCLUSIVE or SHARED, not everything",
        ),
        (
            "@{LOCK_SCANNED_RANGES=shared} SELECT name FROM s FOR UPDATE",
            "FOR UPDATE does not go with the statement hint LOCK_SCANNED_RANGES",
        ),
    ] {
        let refused = rows(&mut memory, text);
        assert!(refused.contains(why), "{text}: {refused}");
    }
}
