"""Read tables of a lake with Spark, and print what is in them. Run by the Python that has pyspark."""

import json
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

jars, kind, *tables = sys.argv[1:]
builder = SparkSession.builder.master("local[1]").config("spark.jars", jars).config("spark.ui.enabled", "false")
builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
builder = builder.config("spark.sql.shuffle.partitions", "1").config("spark.sql.session.timeZone", "UTC")
if kind == "delta":
    builder = builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension").config(
        "spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog"
    )
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
found = {}
for table in tables:
    name, _, place = table.partition("=")
    rows = spark.read.format(kind).load(place)
    text = [f.col(c).cast("string") for c, t in rows.dtypes if c != "position"]
    told = rows.orderBy("position").select("position", *text).collect()
    found[name] = {"columns": rows.columns, "rows": [list(row) for row in told]}
print("RESULT " + json.dumps(found))
