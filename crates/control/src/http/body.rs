//! The JSON body of a request.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::{ops::Error, state::Context};

/// A JSON body. Unknown fields are let pass; no body at all is `{}`.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Context> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, context: &Context) -> Result<Self, Error> {
        let bytes = read(request.into_body(), context.limits().api_body_bytes).await?;
        let text = if bytes.trim_ascii().is_empty() { &b"{}"[..] } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| {
            if error.is_data() {
                // "missing field `x` at line 1 column 2": the place means nothing to people.
                let text = error.to_string();
                let message = text.split(" at line ").next().unwrap_or_default();
                Error::Invalid(format!("Invalid parameters: {message}."))
            } else {
                Error::BadRequest("Unable to parse the JSON in the request body.".to_owned())
            }
        })
    }
}

async fn read(body: Body, most: u64) -> Result<Bytes, Error> {
    match Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX)).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Error::TooLarge(format!("The request body is larger than {most} bytes.")))
        }
        Err(_) => Err(Error::BadRequest("The request body ended early.".to_owned())),
    }
}
