"""What the options of `smspark-submit` become."""

import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launcher"))

import emr
import spark as launcher
import spark_submit
import sudo


class Spark(unittest.TestCase):
    def test_options_become_those_of_spark_submit(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a.py", "b.zip", "notes.txt"):
                (Path(folder) / name).touch()
            asked = launcher.parse(
                ["--py-files", f"{folder},/x/c.py", "--local-spark-event-logs-dir", "/logs", "/code/app.py", "--rows", "3", "-v"]
            )
            expected = [
                "spark-submit",
                *("--conf", "spark.eventLog.enabled=true", "--conf", "spark.eventLog.dir=file:///logs"),
                *("--py-files", f"{folder}/a.py,{folder}/b.zip,/x/c.py"),
                *("/code/app.py", "--rows", "3", "-v"),
            ]
            self.assertEqual(launcher.command("spark-submit", asked), expected)
            asked = launcher.parse(["--class", "com.example.Main", "--jars", folder, "-v", "app.jar"])
            self.assertEqual(launcher.command("s", asked)[-4:], ["--class", "com.example.Main", "--verbose", "app.jar"])

    def test_configurations_become_properties_and_variables(self):
        configuration = [
            {"Classification": "spark-defaults", "Properties": {"spark.a": "1"}},
            {"Classification": "core-site", "Properties": {"fs.b": "2"}},
            {
                "Classification": "spark-env",
                "Properties": {},
                "Configurations": [{"Classification": "export", "Properties": {"C": "3"}}],
            },
        ]
        self.assertEqual(launcher.settings(configuration), ({"spark.a": "1", "spark.hadoop.fs.b": "2"}, {"C": "3"}))
        self.assertEqual(launcher.settings(configuration[0]), ({"spark.a": "1"}, {}))
        with self.assertRaisesRegex(launcher.Refusal, "'yarn-site' means nothing"):
            launcher.settings({"Classification": "yarn-site", "Properties": {"d": "4"}})

    def test_settings_are_files_that_spark_and_hadoop_read(self):
        with tempfile.TemporaryDirectory() as folder:
            launcher.write_configuration(folder, launcher.defaults({"spark.a": "1 2"}), {"fs.b": "<3>"})
            lines = (Path(folder) / "spark-defaults.conf").read_text().splitlines()
            self.assertIn("spark.a 1 2", lines)
            self.assertIn(f"spark.master local[{len(os.sched_getaffinity(0))}]", lines)
            for part in ("core", "hdfs", "mapred"):
                self.assertIn("<value>&lt;3&gt;</value>", (Path(folder) / f"{part}-site.xml").read_text())
            with self.assertRaisesRegex(launcher.Refusal, "'spark.c'"):
                launcher.write_configuration(folder, {"spark.c": "1\nspark.d 2"}, {})


class Step(unittest.TestCase):
    def test_options_of_a_cluster_are_taken_away(self):
        given = "--deploy-mode cluster --master=yarn --name n --conf spark.yarn.x=1 --conf spark.k=v --executor-memory 8g -v".split()
        given += "--driver-memory 512m --num-executors 20 s3://b/app.py --master mine".split()
        kept = "--name n --conf spark.k=v -v --driver-memory 8g s3://b/app.py --master mine".split()
        self.assertEqual(spark_submit.local(given), kept)
        self.assertEqual(spark_submit.local(["--class", "Main", "a.jar"]), ["--class", "Main", "a.jar"])
        self.assertLess(spark_submit.kibibytes("900m"), spark_submit.kibibytes("1GB"))

    def test_a_step_becomes_a_program(self):
        step = {"Jar": "/var/lib/aws/emr/command-runner.jar", "Args": ["spark-submit", "x.py"]}
        self.assertEqual(emr.words_of(step), ["spark-submit", "x.py"])
        step = {"Jar": "/jars/own.jar", "MainClass": "Main", "Args": ["1"]}
        self.assertEqual(emr.words_of(step), ["spark-submit", "--class", "Main", "/jars/own.jar", "1"])
        step = {"SparkSubmit": {"EntryPoint": "s3://b/a.py", "Parameters": "--conf 'a=b c'", "Arguments": ["2"]}}
        self.assertEqual(emr.words_of(step), ["spark-submit", "--conf", "a=b c", "s3://b/a.py", "2"])
        with self.assertRaisesRegex(launcher.Refusal, "needs Args"):
            emr.words_of({"Jar": "command-runner.jar"})
        self.assertEqual(emr.java_properties({"Properties": {"a": 'b "c"'}}), '"-Da=b \\"c\\""')

    def test_scripts_run_as_their_first_line_says(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "script"
            path.write_text("echo 1\n")
            self.assertEqual(emr.script(str(path)), ["bash", str(path)])
            path.write_text("#!/bin/sh\n")
            self.assertEqual(emr.script(str(path)), [str(path)])

    def test_sudo_gives_way_to_the_command(self):
        self.assertEqual(sudo.command(["-E", "-u", "hadoop", "A=1", "pip", "-q"]), (["pip", "-q"], {"A": "1"}))
        self.assertEqual(sudo.command(["--", "ls"]), (["ls"], {}))
