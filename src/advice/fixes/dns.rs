# async fn resolve() -> std::io::Result<()> {
let addresses = tokio::net::lookup_host("example.org:443").await?;
# let _ = addresses;
# Ok(())
# }
