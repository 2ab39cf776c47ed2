package logdriver

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// Defaults of docker's local driver. The driver json-file has them too where
// nothing is said of sizes, unlike docker's, which would fill the disk.
const (
	defaultMaxSize  = 20 << 20
	defaultMaxFiles = 5
	defaultBuffer   = 1 << 20
)

// maxFilesLimit bounds max-file: a directory of more is of no use to anybody.
const maxFilesLimit = 10000

// Keys of options.
const (
	keyMaxSize     = "max-size"
	keyMaxFile     = "max-file"
	keyCompress    = "compress"
	keyMode        = "mode"
	keyBuffer      = "max-buffer-size"
	keyLabels      = "labels"
	keyLabelsRegex = "labels-regex"
	keyEnv         = "env"
	keyEnvRegex    = "env-regex"
	keyTag         = "tag"
	keyCache       = "cache-" // before those of the local driver
	keyCacheOff    = keyCache + "disabled"
)

// options are those of a driver, understood.
type options struct {
	driver        string
	maxSize       int64 // 0: no bound
	maxFiles      int
	compress      bool
	nonBlocking   bool
	bufferSize    int64
	cacheDisabled bool
}

// parse checks and reads the options of a driver, in docker's words.
func parse(driver string, given map[string]string) (options, error) {
	o := options{driver: driver, maxSize: defaultMaxSize, maxFiles: defaultMaxFiles, compress: true, bufferSize: defaultBuffer}
	if driver == "" {
		o.driver = Default
	}
	if o.driver == None {
		return o, nil
	}
	if err := o.delivery(given); err != nil {
		return o, err
	}
	if err := checkKeys(o.driver, given); err != nil {
		return o, err
	}
	switch o.driver {
	case Local:
		return o, o.local(given, "")
	case JSONFile:
		return o, o.json(given)
	}
	return o, o.cache(given)
}

// delivery reads what all drivers share.
func (o *options) delivery(given map[string]string) error {
	mode := given[keyMode]
	switch mode {
	case "", "blocking":
	case "non-blocking":
		o.nonBlocking = true
	default:
		return fmt.Errorf("logger: logging mode not supported: %s", mode)
	}
	size, ok := given[keyBuffer]
	if !ok {
		return nil
	}
	if !o.nonBlocking {
		return errors.New("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	n, err := units.RAMInBytes(size)
	if err != nil {
		return fmt.Errorf("error parsing option max-buffer-size: %w", err)
	}
	o.bufferSize = n
	return nil
}

// checkKeys refuses an option that a driver does not know.
func checkKeys(driver string, given map[string]string) error {
	known := []string{keyMode, keyBuffer, keyLabels, keyLabelsRegex, keyEnv, keyEnvRegex, keyTag}
	files := []string{keyMaxSize, keyMaxFile, keyCompress}
	switch driver {
	case Local, JSONFile:
		known = append(known, files...)
	case Journald:
		known = append(known, keyCacheOff)
		for _, k := range files {
			known = append(known, keyCache+k)
		}
	default:
		return fmt.Errorf("logger: no log driver named '%s' is registered", driver)
	}
	var unknown []string
	for k := range given {
		if !slices.Contains(known, k) {
			unknown = append(unknown, k)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	key := slices.Min(unknown)
	if driver == Local {
		return fmt.Errorf("unknown log opt '%s' for log driver %s", key, driver)
	}
	return fmt.Errorf("unknown log opt '%s' for %s log driver", key, driver)
}

// local reads the options of the local driver, whose names have a prefix where
// it keeps the copy of another one.
func (o *options) local(given map[string]string, prefix string) error {
	if v, ok := given[prefix+keyMaxSize]; ok {
		n, err := units.FromHumanSize(v)
		if err != nil {
			return fmt.Errorf("invalid value for max-size: %s: %w", v, err)
		}
		if n == 0 {
			return errors.New("max-size must be a positive number")
		}
		o.maxSize = n
	}
	if v, ok := given[prefix+keyMaxFile]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("invalid value for max-file: %s: %w", v, err)
		}
		o.maxFiles = n
	}
	if v, ok := given[prefix+keyCompress]; ok {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("invalid boolean value for compress: %w", err)
		}
		o.compress = on
	}
	if o.maxFiles < 0 {
		return errors.New("max-file must not be negative")
	}
	if o.compress && o.maxFiles <= 1 {
		return errors.New("compression cannot be enabled when max file count is 1")
	}
	return o.tooMany()
}

// json reads the options of the driver json-file. A size of -1 is no bound.
func (o *options) json(given map[string]string) error {
	size, sized := given[keyMaxSize]
	files, filed := given[keyMaxFile]
	o.compress = false
	if sized && !filed {
		o.maxFiles = 1 // docker's, once a size is given
	}
	if sized && size == "-1" {
		o.maxSize = 0
	} else if sized {
		n, err := units.FromHumanSize(size)
		if err != nil {
			return err
		}
		if n <= 0 {
			return errors.New("max-size must be a positive number")
		}
		o.maxSize = n
	}
	if filed {
		n, err := strconv.Atoi(files)
		if err != nil {
			return err
		}
		if n < 1 {
			return errors.New("max-file cannot be less than 1")
		}
		o.maxFiles = n
	}
	if v, ok := given[keyCompress]; ok {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return err
		}
		if on && (o.maxFiles == 1 || !sized || o.maxSize == 0) {
			return errors.New("compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		o.compress = on
	}
	return o.tooMany()
}

// cache reads the options of the copy that a driver keeps whose log cannot be read.
func (o *options) cache(given map[string]string) error {
	if v := given[keyCacheOff]; v != "" {
		off, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("invalid value for option %s: %s", keyCacheOff, v)
		}
		o.cacheDisabled = off
	}
	return o.local(given, keyCache)
}

func (o *options) tooMany() error {
	if o.maxFiles > maxFilesLimit {
		return fmt.Errorf("max-file must be %d at most", maxFilesLimit)
	}
	o.maxFiles = max(1, o.maxFiles)
	return nil
}

// words cuts a list such as "a,b".
func words(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}
