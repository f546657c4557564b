//! Lists of a large cluster: read page by page, so that never more than one page of whole objects is held, and worked off
//! some objects at a time.

use std::fmt::Debug;

use futures_util::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;

/// Objects that are read at a time.
const PAGE: u32 = 500;
/// Objects that are written at a time.
const CONCURRENCY: usize = 16;

/// What is left to read of a list.
pub(crate) struct Pages<'api, K> {
    api: &'api Api<K>,
    next: Option<ListParams>,
}

impl<'api, K: Clone + DeserializeOwned + Debug> Pages<'api, K> {
    pub(crate) fn new(api: &'api Api<K>, parameters: ListParams) -> Self {
        Self { api, next: Some(parameters.limit(PAGE)) }
    }

    /// The next page, until there is none.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<K>>, kube::Error> {
        let Some(parameters) = self.next.take() else { return Ok(None) };
        let list = self.api.list(&parameters).await?;
        let token = list.metadata.continue_.filter(|token| !token.is_empty());
        self.next = token.map(|token| parameters.continue_token(&token));
        Ok(Some(list.items))
    }
}

/// Does something with every object that a list names.
pub(crate) async fn for_all<K, F>(api: &Api<K>, parameters: ListParams, act: impl Fn(K) -> F) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
    F: Future<Output = Result<(), kube::Error>>,
{
    let mut pages = Pages::new(api, parameters);
    while let Some(page) = pages.next().await? {
        let objects = stream::iter(page).map(Ok::<K, kube::Error>);
        objects.try_for_each_concurrent(CONCURRENCY, &act).await?;
    }
    Ok(())
}
