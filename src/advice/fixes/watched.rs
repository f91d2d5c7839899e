# use stallscope::WatchExt;
# async fn thumbnail() -> u64 { 1 }
# async fn handler() -> u64 {
thumbnail().watched("thumbnail").await
# }
