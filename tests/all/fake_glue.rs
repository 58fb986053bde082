//! A Glue Data Catalog inside the test process: it keeps the limits and the conditions of the real one, answers a page
//! at a time, and fails on demand.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks, and nothing is done.
    Close,
    /// The request is carried out, and the connection breaks.
    AppliedThenClose,
    /// `ThrottlingException`.
    Throttle,
    /// `AccessDeniedException`.
    Deny,
    /// There is no answer.
    Hang,
    /// Each entry of a batch fails with `InternalServiceException`.
    Entries,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Database {
    pub tables: BTreeMap<String, Table>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    pub input: Value,
    pub version: u64,
    pub partitions: BTreeMap<Vec<String>, Value>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    databases: BTreeMap<String, Database>,
    /// Operations with their inputs.
    log: Vec<(String, Value)>,
    /// Faults by the number of the request since they were set, from 0; `None` is each request.
    faults: Vec<(Option<usize>, Fault)>,
    /// What happens before the request of this number is carried out.
    meanwhile: Option<(usize, Meanwhile)>,
    requests: usize,
}

pub struct FakeGlue {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeGlue {
    pub fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let state = Arc::clone(&shared);
                let service = hyper::service::service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { answer(request, state).await }
                });
                let socket = hyper_util::rt::TokioIo::new(socket);
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(socket, service));
            }
        });
        Self {
            endpoint,
            state,
            _runtime: runtime,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The database of the tests; an empty one where there is none.
    pub fn database(&self) -> Database {
        let databases = &self.state().databases;
        databases.get("rawmart").cloned().unwrap_or_default()
    }

    /// Replaces the database of the tests.
    pub fn set(&self, database: Option<Database>) {
        let databases = &mut self.state().databases;
        databases.clear();
        databases.extend(database.map(|database| ("rawmart".to_owned(), database)));
    }

    /// Fails the request after the next `skip`, or every request, and forgets earlier faults.
    pub fn fail(&self, skip: Option<usize>, fault: Fault) {
        let mut state = self.state();
        state.requests = 0;
        state.faults = vec![(skip, fault)];
    }

    /// Does something before the request after the next `skip` is carried out.
    pub fn meanwhile(&self, skip: usize, doing: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        state.requests = 0;
        state.meanwhile = Some((skip, Box::new(doing)));
    }

    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.meanwhile = None;
    }

    /// The operations since the last call, with their inputs.
    pub fn take_log(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.state().log)
    }

    /// The operations since the last call.
    pub fn operations(&self) -> Vec<String> {
        let log = self.take_log().into_iter();
        log.map(|(operation, _)| operation).collect()
    }
}

type Refused = (&'static str, String);

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<String>, Box<dyn std::error::Error + Send + Sync>> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let operation = header("x-amz-target").replace("AWSGlue.", "");
    assert_eq!(header("content-type"), "application/x-amz-json-1.1");
    let scope = header("authorization");
    assert!(scope.contains("/glue/aws4_request"), "{scope}");
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) =
        std::future::poll_fn(|cx| Body::poll_frame(std::pin::Pin::new(&mut body), cx)).await
    {
        bytes.extend_from_slice(frame?.data_ref().unwrap());
    }
    let input: Value = serde_json::from_slice(&bytes)?;
    let (fault, doing) = {
        let mut state = state.lock().unwrap();
        let number = state.requests;
        state.requests += 1;
        state.log.push((operation.clone(), input.clone()));
        let mut faults = state.faults.iter();
        let fault = faults.find(|(at, _)| at.is_none_or(|at| at == number));
        let fault = fault.map(|(_, fault)| *fault);
        let doing = state.meanwhile.take_if(|(at, _)| *at == number);
        (fault, doing)
    };
    if let Some((_, doing)) = doing {
        tokio::task::spawn_blocking(doing).await?;
    }
    let refuse = |code: &str, message: &str| {
        let body = json!({ "__type": code, "Message": message });
        let mut response = Response::new(body.to_string());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        Ok(response)
    };
    match fault {
        Some(Fault::Close) => return Err("closed on purpose".into()),
        Some(Fault::Throttle) => return refuse("ThrottlingException", "Rate exceeded"),
        Some(Fault::Deny) => {
            let message = format!("not authorized to perform: glue:{operation}");
            return refuse("AccessDeniedException", &message);
        }
        Some(Fault::Hang) => {
            std::future::pending::<Infallible>().await;
        }
        Some(Fault::AppliedThenClose | Fault::Entries) | None => {}
    }
    let entries = fault == Some(Fault::Entries);
    let done = state.lock().unwrap().carry_out(&operation, &input, entries);
    if fault == Some(Fault::AppliedThenClose) {
        return Err("closed on purpose".into());
    }
    match done {
        Ok(answer) => Ok(Response::new(answer.to_string())),
        Err((code, message)) => refuse(code, &message),
    }
}

fn text(input: &Value, member: &str) -> String {
    input[member].as_str().unwrap_or_default().to_owned()
}

fn values(input: &Value) -> Vec<String> {
    let values = input.as_array().unwrap().iter();
    values
        .map(|value| value.as_str().unwrap().to_owned())
        .collect()
}

fn at_most<'v>(input: &'v Value, member: &str, most: usize) -> Result<&'v Vec<Value>, Refused> {
    let list = input[member].as_array().unwrap();
    match list.len() {
        n if (1..=most).contains(&n) => Ok(list),
        n => Err(("InvalidInputException", format!("{member} has {n} members"))),
    }
}

fn page<'v, T>(input: &Value, all: &'v [T], most: usize) -> (&'v [T], Value) {
    let from: usize = text(input, "NextToken").parse().unwrap_or(0);
    let asked = input["MaxResults"].as_u64().unwrap() as usize;
    let to = all.len().min(from + asked.min(most));
    let next = match to < all.len() {
        true => to.to_string().into(),
        false => Value::Null,
    };
    (&all[from..to], next)
}

/// Refuses what Glue refuses of a definition.
fn check(input: &Value) -> Result<(), Refused> {
    let known = [
        "Name",
        "Description",
        "Owner",
        "Retention",
        "TableType",
        "StorageDescriptor",
        "PartitionKeys",
        "Parameters",
    ];
    let refused = |what: String| Err(("InvalidInputException", what));
    if let Some(odd) = input
        .as_object()
        .unwrap()
        .keys()
        .find(|key| !known.contains(&key.as_str()))
    {
        return refused(format!("Unknown member {odd}"));
    }
    let line = |text: &str, most: usize| text.len() <= most && !text.contains(char::is_control);
    if !line(&text(input, "Description"), 2048) {
        return refused("Description".to_owned());
    }
    let columns = input["StorageDescriptor"]["Columns"].as_array().unwrap();
    let keys = input["PartitionKeys"].as_array().unwrap();
    for column in columns.iter().chain(keys) {
        if !line(&text(column, "Comment"), 255) || text(column, "Type").is_empty() {
            return refused(format!("column {column}"));
        }
    }
    Ok(())
}

impl State {
    fn carry_out(
        &mut self,
        operation: &str,
        input: &Value,
        entries: bool,
    ) -> Result<Value, Refused> {
        if operation == "CreateDatabase" {
            let name = text(&input["DatabaseInput"], "Name");
            if self.databases.contains_key(&name) {
                return Err(("AlreadyExistsException", name));
            }
            self.databases.insert(name, Database::default());
            return Ok(json!({}));
        }
        let missing = |name: &str| ("EntityNotFoundException", format!("{name} not found."));
        let name = text(input, "DatabaseName");
        let database = self
            .databases
            .get_mut(&name)
            .ok_or_else(|| missing(&name))?;
        let tables = &mut database.tables;
        match operation {
            "GetTables" => {
                let all: Vec<Value> = tables.values().map(Table::shown).collect();
                let (found, next) = page(input, &all, 2);
                Ok(json!({ "TableList": found, "NextToken": next }))
            }
            "CreateTable" => {
                let input = &input["TableInput"];
                check(input)?;
                let table = Table {
                    input: input.clone(),
                    ..Table::default()
                };
                match tables.insert(text(input, "Name"), table) {
                    None => Ok(json!({})),
                    Some(old) => {
                        let name = text(input, "Name");
                        tables.insert(name.clone(), old);
                        Err(("AlreadyExistsException", name))
                    }
                }
            }
            "UpdateTable" => {
                let new = &input["TableInput"];
                check(new)?;
                assert_eq!(input["SkipArchive"], true, "versions are limited");
                let name = text(new, "Name");
                let table = tables.get_mut(&name).ok_or_else(|| missing(&name))?;
                if text(input, "VersionId") != table.version.to_string() {
                    let message = "Update table failed due to concurrent modifications.";
                    return Err(("ConcurrentModificationException", message.to_owned()));
                }
                table.version += 1;
                table.input = new.clone();
                Ok(json!({}))
            }
            "GetTable" => {
                let name = text(input, "Name");
                let table = tables.get(&name).ok_or_else(|| missing(&name))?;
                Ok(json!({ "Table": table.shown() }))
            }
            "DeleteTable" => {
                let name = text(input, "Name");
                tables.remove(&name).ok_or_else(|| missing(&name))?;
                Ok(json!({}))
            }
            _ => {
                let name = text(input, "TableName");
                let table = tables.get_mut(&name).ok_or_else(|| missing(&name))?;
                table.partitions(operation, input, entries)
            }
        }
    }
}

impl Table {
    fn shown(&self) -> Value {
        let mut shown = self.input.clone();
        shown["VersionId"] = self.version.to_string().into();
        shown["DatabaseName"] = "rawmart".into();
        shown["CreateTime"] = 1.5e9.into();
        shown["IsRegisteredWithLakeFormation"] = false.into();
        shown
    }

    fn partitions(
        &mut self,
        operation: &str,
        input: &Value,
        entries: bool,
    ) -> Result<Value, Refused> {
        let mut errors = Vec::new();
        let mut fail = |member: &str, values: &[String], code: &str| {
            let mut error = Map::new();
            error.insert(member.to_owned(), json!(values));
            let detail = json!({ "ErrorCode": code, "ErrorMessage": "as told" });
            error.insert("ErrorDetail".to_owned(), detail);
            errors.push(Value::from(error));
        };
        const BROKEN: &str = "InternalServiceException";
        match operation {
            "GetPartitions" => {
                assert_eq!(input["ExcludeColumnSchema"], true);
                let mut all: Vec<Value> = self.partitions.values().cloned().collect();
                for partition in &mut all {
                    let storage = partition["StorageDescriptor"].as_object_mut().unwrap();
                    storage.remove("Columns");
                }
                let (found, next) = page(input, &all, 3);
                return Ok(json!({ "Partitions": found, "NextToken": next }));
            }
            "BatchGetPartition" => {
                let asked = at_most(input, "PartitionsToGet", 1000)?;
                // It may leave some for later.
                let (now, later) = asked.split_at(asked.len().min(60));
                let found = now
                    .iter()
                    .filter_map(|v| self.partitions.get(&values(&v["Values"])));
                let found: Vec<_> = found.collect();
                return Ok(json!({ "Partitions": found, "UnprocessedKeys": later }));
            }
            "BatchCreatePartition" => {
                let keys = self.input["PartitionKeys"].as_array().unwrap().len();
                for partition in at_most(input, "PartitionInputList", 100)? {
                    let values = values(&partition["Values"]);
                    assert_eq!(values.len(), keys);
                    if entries {
                        fail("PartitionValues", &values, BROKEN);
                        continue;
                    }
                    match self.partitions.entry(values) {
                        Entry::Occupied(known) => {
                            fail("PartitionValues", known.key(), "AlreadyExistsException");
                        }
                        Entry::Vacant(free) => {
                            free.insert(partition.clone());
                        }
                    }
                }
            }
            "BatchUpdatePartition" => {
                for entry in at_most(input, "Entries", 100)? {
                    let values = values(&entry["PartitionValueList"]);
                    let found = self.partitions.get_mut(&values);
                    match found {
                        Some(found) if !entries => *found = entry["PartitionInput"].clone(),
                        Some(_) => fail("PartitionValueList", &values, BROKEN),
                        None => fail("PartitionValueList", &values, "EntityNotFoundException"),
                    }
                }
            }
            "BatchDeletePartition" => {
                for partition in at_most(input, "PartitionsToDelete", 25)? {
                    let values = values(&partition["Values"]);
                    if entries {
                        fail("PartitionValues", &values, BROKEN);
                    } else if self.partitions.remove(&values).is_none() {
                        fail("PartitionValues", &values, "EntityNotFoundException");
                    }
                }
            }
            other => panic!("{other} is no operation of this catalog"),
        }
        Ok(json!({ "Errors": errors }))
    }
}
