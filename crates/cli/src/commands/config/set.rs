//! Sets and unsets config vars.

use http::Method;
use serde_json::{Map, Value};

use crate::{
    Error, Printer,
    commands::{Session, releases},
};

pub(in crate::commands) async fn run(
    session: &Session,
    app: &str,
    pairs: &[String],
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let mut vars = Map::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("{pair} is invalid: it must be in the form KEY=value")))?;
        vars.insert(key.to_owned(), Value::from(value));
    }
    change(session, app, "Setting", vars, printer).await
}

pub(in crate::commands) async fn unset(
    session: &Session,
    app: &str,
    keys: &[String],
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let vars = keys.iter().map(|key| (key.clone(), Value::Null)).collect();
    change(session, app, "Unsetting", vars, printer).await
}

async fn change(
    session: &Session,
    app: &str,
    verb: &str,
    vars: Map<String, Value>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let names: Vec<&str> = vars.keys().map(String::as_str).collect();
    printer.begin(&format!("{verb} {} and restarting {app}", names.join(", ")));
    let now: Value = session.api.call(Method::PATCH, &format!("/apps/{app}/config-vars"), Some(&vars)).await?;
    let release = releases::newest(session, app).await?;
    printer.done(&format!("done, v{release}"));
    if printer.is_json() { printer.json(&now) } else { Ok(()) }
}
