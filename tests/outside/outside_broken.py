"""A method whose author forgot a dependency: it may trouble nobody who does not name it."""

import a_package_that_nobody_has

outside_broken = a_package_that_nobody_has.method
