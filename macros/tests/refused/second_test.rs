#[stallscope::test]
#[tokio::test]
async fn of_tokio() {}

#[stallscope::test]
#[test]
async fn of_the_language() {}

fn main() {}
