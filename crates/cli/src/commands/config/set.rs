//! Sets config vars.

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
    let names: Vec<&str> = vars.keys().map(String::as_str).collect();
    let names = names.join(", ");
    let _: Value = session.api.call(Method::PATCH, &format!("/apps/{app}/config-vars"), Some(&vars)).await?;
    let release = releases::newest(session, app).await?;
    printer.note(&format!("Setting {names} and restarting {app}... done, v{release}"));
    Ok(())
}
