"""Small sources for the ETL of one day: flights, weather, movies."""

import csv
import sqlite3
import zipfile

FLIGHTS = "year,month,day,carrier,flight,origin,dest,hour,dep_delay,distance\n" + "".join(
    f"2013,3,10,AA,{n},{'EWR' if n % 2 else 'JFK'},MIA,{n % 24},{n - 10},1000\n" for n in range(60)
)
with zipfile.ZipFile("flights.csv.zip", "w") as archive:
    archive.writestr("flights.csv", FLIGHTS + "2013,3,11,AA,1,EWR,MIA,1,NA,1000\n")
with open("weather.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["origin", "year", "month", "day", "hour", "temp", "wind_speed", "precip", "visib"])
    for origin in ("EWR", "JFK"):
        rows.writerows([origin, 2013, 3, 10, hour, 40.5, 7, 0, 10] for hour in range(24))
movies = sqlite3.connect("movies.db")
movies.execute("create table omdb (ID int, Title text, Year int, imdbRating real)")
movies.execute("insert into omdb values (1, 'One', 2001, 7.5), (2, 'Two', 2002, 8.5)")
movies.commit()
