-- The sample's tables, in BigQuery's SQL; it would run on the real BigQuery as it is.
-- {{users}} and its like are row counts. All values follow from the row number n, so that two
-- loads are the same, and all times lie in the past, so that a second run moves only changes.
-- Rows are numbered in blocks because an array of GENERATE_ARRAY has a million elements at most.
-- A few rows are bad on purpose and end as dead letters: users 13, 113 and 1113 have no id,
-- events 17, 117 and 1117 are too long, events 19, 119 and 1119 have no name.

CREATE SCHEMA IF NOT EXISTS app;

CREATE OR REPLACE TABLE app.users AS
SELECT
  IF(n IN (13, 113, 1113), NULL, n) AS id,
  IF(
    n IN (13, 113, 1113), NULL,
    CONCAT('user', CAST(n AS STRING), '@example.com')
  ) AS email_address,
  CASE MOD(n, 8)
    WHEN 0 THEN 'Ada' WHEN 1 THEN 'Grace' WHEN 2 THEN 'Alan' WHEN 3 THEN 'Zoë'
    WHEN 4 THEN 'Edsger' WHEN 5 THEN 'Barbara' WHEN 6 THEN 'Łukasz' ELSE 'Margaret'
  END AS fname,
  CASE MOD(n, 7)
    WHEN 0 THEN 'Lovelace' WHEN 1 THEN 'Hopper' WHEN 2 THEN 'Turing' WHEN 3 THEN "O'Neill"
    WHEN 4 THEN 'Hamilton' WHEN 5 THEN 'Liskov' ELSE 'Müller'
  END AS lname,
  CONCAT('+1555', LPAD(CAST(n AS STRING), 7, '0')) AS msisdn,
  CASE MOD(n, 3) WHEN 0 THEN 'free' WHEN 1 THEN 'basic' ELSE 'premium' END AS plan,
  STRUCT(
    CONCAT(CAST(MOD(n, 200) + 1 AS STRING), ' Main Street') AS street,
    CASE MOD(n, 5)
      WHEN 0 THEN 'Portland' WHEN 1 THEN 'Köln' WHEN 2 THEN 'Lyon' WHEN 3 THEN 'Osaka'
      ELSE 'Lagos'
    END AS city,
    CASE MOD(n, 5)
      WHEN 0 THEN 'US' WHEN 1 THEN 'DE' WHEN 2 THEN 'FR' WHEN 3 THEN 'JP' ELSE 'NG'
    END AS country
  ) AS address,
  [CONCAT('cohort-', CAST(MOD(n, 12) + 1 AS STRING)), IF(MOD(n, 2) = 0, 'web', 'mobile')] AS tags,
  JSON_OBJECT(
    'newsletter', (MOD(n, 4) > 0), 'language', IF(MOD(n, 5) = 1, 'de', 'en')
  ) AS preferences,
  CAST(MOD(n * 7919, 1000000) / 100 AS NUMERIC) AS balance,
  DATETIME(TIMESTAMP_SECONDS(1640995200 + MOD(n * 15485863, 60000000))) AS created,
  TIMESTAMP_SECONDS(1704067200 + MOD(n * 104729, 31000000)) AS last_updated
FROM UNNEST(GENERATE_ARRAY(0, {{users}} - 1, 100000)) AS first
CROSS JOIN UNNEST(GENERATE_ARRAY(first + 1, LEAST(first + 100000, {{users}}))) AS n;

CREATE OR REPLACE TABLE app.events AS
SELECT
  MOD(n * 7919, {{users}}) + 1 AS id,
  IF(n IN (19, 119, 1119), NULL, IF(MOD(n, 3) = 0, 'Cart Viewed', 'Order Completed')) AS event_name,
  TO_HEX(MD5(CAST(n AS STRING))) AS order_id,
  IF(
    MOD(n, 3) = 0,
    [STRUCT('A-100' AS sku, 'Notebook' AS name, MOD(n, 3) + 1 AS quantity, NUMERIC '4.5' AS price)],
    [
      STRUCT('B-200' AS sku, 'Fountain pen' AS name, 1 AS quantity, NUMERIC '29.25' AS price),
      STRUCT(
        CONCAT('C-', CAST(MOD(n, 50) AS STRING)) AS sku,
        'Ink' AS name,
        MOD(n, 5) + 1 AS quantity,
        NUMERIC '8' AS price
      )
    ]
  ) AS products,
  CAST(MOD(n * 6151, 50000) / 100 AS NUMERIC) AS total_price,
  IF(n IN (17, 117, 1117), REPEAT('A long story. ', 2400), NULL) AS comment,
  TIMESTAMP_SECONDS(1704067200 + MOD(n * 1299709, 31000000)) AS timestamp
FROM UNNEST(GENERATE_ARRAY(0, {{events}} - 1, 100000)) AS first
CROSS JOIN UNNEST(GENERATE_ARRAY(first + 1, LEAST(first + 100000, {{events}}))) AS n;

CREATE OR REPLACE TABLE app.companies AS
SELECT
  CONCAT('company-', CAST(DIV(n + 3, 4) AS STRING)) AS companyId,
  1 AS objectTypeId,
  CONCAT('Company ', CAST(DIV(n + 3, 4) AS STRING), ' & Sons') AS companyname,
  MOD(DIV(n + 3, 4) * 37, 5000) + 1 AS employees,
  MOD(n * 31, {{users}}) + 1 AS personId,
  CASE MOD(n, 3) WHEN 0 THEN 'Engineer' WHEN 1 THEN 'Buyer' ELSE 'Director' END AS job_title,
  MOD(n, 4) = 1 AS primary_contact,
  TIMESTAMP_SECONDS(1704067200 + MOD(n * 7927, 31000000)) AS last_updated
FROM UNNEST(GENERATE_ARRAY(0, {{companies}} - 1, 100000)) AS first
CROSS JOIN UNNEST(GENERATE_ARRAY(first + 1, LEAST(first + 100000, {{companies}}))) AS n;

CREATE OR REPLACE TABLE app.pages AS
SELECT
  MOD(n * 7, {{users}}) + 1 AS id,
  CASE MOD(n, 4)
    WHEN 0 THEN 'Pricing' WHEN 1 THEN 'Docs' WHEN 2 THEN 'Blog' ELSE 'Checkout'
  END AS metatitle,
  CONCAT(
    'https://example.com/',
    CASE MOD(n, 4) WHEN 0 THEN 'pricing' WHEN 1 THEN 'docs' WHEN 2 THEN 'blog' ELSE 'buy' END,
    '?visit=',
    CAST(n AS STRING)
  ) AS url,
  MOD(n * 13, 600) / 10 AS time_on_page,
  TIMESTAMP_SECONDS(1704067200 + MOD(n * 15331, 31000000)) AS timestamp
FROM UNNEST(GENERATE_ARRAY(0, {{pages}} - 1, 100000)) AS first
CROSS JOIN UNNEST(GENERATE_ARRAY(first + 1, LEAST(first + 100000, {{pages}}))) AS n;

CREATE OR REPLACE TABLE app.screens AS
SELECT
  MOD(n * 11, {{users}}) + 1 AS id,
  CASE MOD(n, 3) WHEN 0 THEN 'Home' WHEN 1 THEN 'Search' ELSE 'Profile' END AS screen_name,
  TIMESTAMP_SECONDS(1704067200 + MOD(n * 17389, 31000000) - MOD(n, 900)) AS session_started,
  TIMESTAMP_SECONDS(1704067200 + MOD(n * 17389, 31000000)) AS timestamp
FROM UNNEST(GENERATE_ARRAY(0, {{screens}} - 1, 100000)) AS first
CROSS JOIN UNNEST(GENERATE_ARRAY(first + 1, LEAST(first + 100000, {{screens}}))) AS n;

CREATE OR REPLACE TABLE app.user_resolution AS
SELECT
  MOD(n * 100, {{users}}) + 1 AS id,
  CONCAT('visitor-', TO_HEX(MD5(CAST(n AS STRING)))) AS old_id,
  TIMESTAMP_SECONDS(1704067200 + MOD(n * 9973, 31000000)) AS timestamp
FROM UNNEST(GENERATE_ARRAY(0, {{aliases}} - 1, 100000)) AS first
CROSS JOIN UNNEST(GENERATE_ARRAY(first + 1, LEAST(first + 100000, {{aliases}}))) AS n;
